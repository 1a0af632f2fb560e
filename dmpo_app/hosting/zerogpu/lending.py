"""What a lent GPU minute is used for, in words for the person who lends it. Implements `domain.GpuLending`."""

from __future__ import annotations

from collections.abc import Iterator

from dmpo_app.domain.render_request import RenderedImage, RenderRequest
from dmpo_app.domain.round import RoundState, RoundStatus
from dmpo_app.hosting.zerogpu.image_rendering import LentPictures
from dmpo_app.hosting.zerogpu.round_slices import LentRounds

_NOTHING = (
    "There is nothing to do for a GPU just now: enough pairs are waiting, and too few new votes are in for a round. "
    "Votes help most. Your minute was not used."
)


class Lending:
    """A pool that has run dry comes first, then the round that is due or under way, then pairs and the sheet."""

    def __init__(self, pictures: LentPictures, rounds: LentRounds, *, seconds: float) -> None:
        self._pictures = pictures
        self._rounds = rounds
        self._seconds = seconds

    def lend(self) -> Iterator[str]:
        state = None if self._pictures.is_low else self._rounds.next_round()
        yield from self._paint() if state is None else self._train(state)

    def render(self, request: RenderRequest) -> list[RenderedImage]:
        return self._pictures.render(request)

    def _train(self, state: RoundState) -> Iterator[str]:
        yield f"Asking for a GPU to train round {state.id}…"
        now = state
        for now in self._rounds.advance(state, self._seconds):
            yield f"Round {now.id}: step {now.step} of {now.steps}."
        yield _ended(now)

    def _paint(self) -> Iterator[str]:
        yield "Asking for a GPU to make pictures…"
        count = 0
        for count in self._pictures.fill(self._seconds):
            yield f"{count} pictures made."
        yield f"Thank you: {count} pictures were made for everybody." if count else _NOTHING


def _ended(state: RoundState) -> str:
    if state.status is RoundStatus.PUBLISHED:
        return f"Thank you: round {state.id} is finished, and version {state.adapter_version} is live."
    if state.status is RoundStatus.REFUSED:
        return f"Thank you: round {state.id} is finished. What it learned was not taken: {state.reason}"
    return f"Thank you: round {state.id} is at step {state.step} of {state.steps}; the next minute goes on from there."

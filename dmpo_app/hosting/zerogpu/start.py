"""The start on ZeroGPU: `spaces` first, then the base model in this very thread, then everything else."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.render_request import RenderedImage, RenderRequest
from dmpo_app.domain.round import RoundState, RoundStatus
from dmpo_app.hosting.zerogpu.image_rendering import LentPictures
from dmpo_app.hosting.zerogpu.round_slices import LentRounds
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.store.store import utc_now

if TYPE_CHECKING:
    from dmpo_app.hosting.zerogpu.gpu_calls import Work
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


@dataclass(frozen=True, slots=True)
class LentStudio:
    """What stands in for the render thread and the trainer process, and what people lend their minutes to."""

    pictures: LentPictures
    rounds: LentRounds
    lending: Lending


def start(store: Store, base: BaseModelRef, settings: Settings) -> LentStudio:
    """Load the base model where ZeroGPU finds it. To be called in the main thread, before the page is served.

    `spaces` puts an imaginary GPU into torch for the thread that imports it; the weights that are placed there until
    the page is served are what a process with a real GPU is given. Raises SetupProblem and its kind.
    """
    import spaces  # before torch is used: that is how it finds out whether it came too late

    from dmpo_app.hosting.zerogpu.gpu_calls import GpuWorker, gpu_seconds

    worker = GpuWorker.load(base, settings, num_threads=os.cpu_count() or 1)
    return assemble(store, base, settings, spaces.GPU(duration=gpu_seconds)(worker.work))


def assemble(store: Store, base: BaseModelRef, settings: Settings, work: Work) -> LentStudio:
    """The studio on a GPU that `work` borrows."""
    from dmpo_app.hosting.zerogpu.gpu_calls import BorrowedGpu
    from dmpo_app.hosting.zerogpu.image_rendering import LentPictures
    from dmpo_app.hosting.zerogpu.round_slices import LentRounds

    gpu = BorrowedGpu(work)
    pictures = LentPictures(store, base, settings, gpu, rng=random.Random(), now=utc_now)
    rounds = LentRounds(store, base, settings, gpu, owner=f"serve@{socket.gethostname()}", now=utc_now)
    return LentStudio(pictures, rounds, Lending(pictures, rounds, seconds=settings.hosting.slice_seconds))

"""A simulated annotator: judges pairs and ranks sets by a taste computed from pixels, through the JSON API.

For trying the loop alone and for benchmarks; a share of its answers can be made wrong on purpose.
"""

from __future__ import annotations

import io
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from PIL import Image

from dmpo_app.domain.vote import Choice
from dmpo_app.errors import BadInput, NotReady, StudioError
from dmpo_app.labeling.tastes import Taste

_WARM_UP_SECONDS = 120.0

_Answer = tuple[Choice | None, list[int], bool]
"""A choice, or an order of places; and whether it was made wrong on purpose."""


@dataclass(frozen=True, slots=True)
class SimulatedVote:
    vote_id: int
    prompt: str
    choice: Choice | None
    """None where a set was ranked."""
    wrong: bool
    votes_until_round: int
    order: tuple[int, ...] = ()
    """The places of a set's images as shown, best first."""


class SimulatedAnnotator:
    """One session at the studio under `client`'s base URL, e.g. httpx.Client(base_url="http://127.0.0.1:7860")."""

    def __init__(
        self, client: httpx.Client, taste: Taste, *, wrong_share: float = 0.0, rng: random.Random, handle: str
    ) -> None:
        if not 0 <= wrong_share <= 1:
            raise BadInput(f"the share of wrong votes is {wrong_share}; expected a number from 0 to 1")
        self._client = client
        self._taste = taste
        self._wrong_share = wrong_share
        self._rng = rng
        answer = _checked(client.post("/api/v1/session", json={"handle": handle}))
        self._headers = {"Authorization": f"Bearer {answer.json()['token']}"}

    def votes(self, count: int) -> Iterator[SimulatedVote]:
        """Cast `count` votes, each yielded once it is acknowledged; sets are ranked. Waits for a studio to warm up."""
        for _ in range(count):
            yield self._vote_on(self._next_assignment())

    def _next_assignment(self) -> dict[str, Any]:
        deadline = time.monotonic() + _WARM_UP_SECONDS
        while True:
            answer = _checked(self._client.get("/api/v1/assignments", params={"count": 1}, headers=self._headers))
            assignments: list[dict[str, Any]] = answer.json()["assignments"]
            if assignments:
                return assignments[0]
            if time.monotonic() > deadline:
                raise NotReady(f"the studio had no pair to judge for {_WARM_UP_SECONDS:.0f} s; see its page for why")
            time.sleep(0.5)

    def _vote_on(self, assignment: dict[str, Any]) -> SimulatedVote:
        started = time.monotonic()
        urls = [assignment["left"], assignment["right"], *assignment.get("more", [])]
        scores: list[float] = self._taste.scores(np.stack([self._pixels(url) for url in urls])).tolist()
        choice, order, wrong = self._ranked(scores) if len(urls) > 2 else self._chosen(scores)
        body = {
            "assignment": assignment["id"],
            **({"order": order} if choice is None else {"choice": choice.value}),
            "elapsed_ms": int((time.monotonic() - started) * 1000),
        }
        answer = _checked(self._client.post("/api/v1/votes", json=body, headers=self._headers)).json()
        return SimulatedVote(
            answer["vote"], assignment["prompt"], choice, wrong, answer["votes_until_round"], tuple(order)
        )

    def _chosen(self, scores: list[float]) -> _Answer:
        left, right = scores
        choice = Choice.TIE if left == right else Choice.LEFT if left > right else Choice.RIGHT
        wrong = choice is not Choice.TIE and self._rng.random() < self._wrong_share
        if wrong:
            choice = Choice.RIGHT if choice is Choice.LEFT else Choice.LEFT
        return choice, [], wrong

    def _ranked(self, scores: list[float]) -> _Answer:
        """Best first; what is equal in the order of a lot, since sets take no ties. Wrong is the other way round."""
        lots = [self._rng.random() for _ in scores]
        order = sorted(range(len(scores)), key=lambda place: (-scores[place], lots[place]))
        wrong = self._rng.random() < self._wrong_share
        return None, order[::-1] if wrong else order, wrong

    def _pixels(self, url: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        with Image.open(io.BytesIO(_checked(self._client.get(url)).content)) as image:
            return np.asarray(image.convert("RGB"))


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        raise StudioError(
            f"{answer.request.method} {answer.request.url.path} answered {answer.status_code}: {answer.text[:300]}"
        )
    return answer

"""A simulated annotator: votes on pairs and ranks sets by a taste computed from pixels, through the JSON API.

For trying the loop alone and for benchmarks; a share of its votes can be made wrong on purpose.
"""

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
from dmpo_app.errors import BadInputError, NotReadyError, StudioError
from dmpo_app.labeling.tastes import Taste

_WARM_UP_SECONDS = 120.0

_SimulatedChoice = tuple[Choice | None, list[int], bool]
"""A choice, or an order of places; and True where it is wrong on purpose."""


@dataclass(frozen=True, slots=True)
class SimulatedVote:
    vote_id: int
    prompt: str
    choice: Choice | None
    """None where a set was ranked."""
    is_wrong: bool
    votes_until_round: int
    order: tuple[int, ...] = ()
    """The places of a set's images as shown, best first."""


class SimulatedAnnotator:
    """One session at the studio under `client`'s base URL, e.g. httpx.Client(base_url="http://127.0.0.1:7860")."""

    def __init__(
        self, client: httpx.Client, taste: Taste, *, wrong_share: float = 0.0, rng: random.Random, handle: str
    ) -> None:
        if not 0 <= wrong_share <= 1:
            raise BadInputError(f"the share of wrong votes is {wrong_share}; expected a number from 0 to 1")
        self._client = client
        self._taste = taste
        self._wrong_share = wrong_share
        self._rng = rng
        response = _raise_for_error(client.post("/api/v1/session", json={"handle": handle}))
        self._headers = {"Authorization": f"Bearer {response.json()['token']}"}

    def votes(self, count: int) -> Iterator[SimulatedVote]:
        """Cast `count` votes, each yielded once it is acknowledged; sets are ranked. Waits for a studio to warm up."""
        for _ in range(count):
            yield self._vote_on(self._next_assignment())

    def _next_assignment(self) -> dict[str, Any]:
        deadline = time.monotonic() + _WARM_UP_SECONDS
        while True:
            response = _raise_for_error(
                self._client.get("/api/v1/assignments", params={"count": 1}, headers=self._headers)
            )
            assignments: list[dict[str, Any]] = response.json()["assignments"]
            if assignments:
                return assignments[0]
            if time.monotonic() > deadline:
                raise NotReadyError(
                    f"the studio had no pair to vote on for {_WARM_UP_SECONDS:.0f} s; see its page for why"
                )
            time.sleep(0.5)

    def _vote_on(self, assignment: dict[str, Any]) -> SimulatedVote:
        started_at = time.monotonic()
        urls = [assignment["left"], assignment["right"], *assignment.get("more", [])]
        scores: list[float] = self._taste.scores(np.stack([self._pixels(url) for url in urls])).tolist()
        choice, order, wrong = self._rank(scores) if len(urls) > 2 else self._choose(scores)
        body = {
            "assignment": assignment["id"],
            **({"order": order} if choice is None else {"choice": choice.value}),
            "elapsed_ms": int((time.monotonic() - started_at) * 1000),
        }
        receipt = _raise_for_error(self._client.post("/api/v1/votes", json=body, headers=self._headers)).json()
        return SimulatedVote(
            receipt["vote"], assignment["prompt"], choice, wrong, receipt["votes_until_round"], tuple(order)
        )

    def _choose(self, scores: list[float]) -> _SimulatedChoice:
        left, right = scores
        choice = Choice.TIE if left == right else Choice.LEFT if left > right else Choice.RIGHT
        wrong = choice is not Choice.TIE and self._rng.random() < self._wrong_share
        if wrong:
            choice = Choice.RIGHT if choice is Choice.LEFT else Choice.LEFT
        return choice, [], wrong

    def _rank(self, scores: list[float]) -> _SimulatedChoice:
        """Rank a set, best first; equal scores by lot, since sets take no ties. A wrong ranking is the reverse."""
        tie_breakers = [self._rng.random() for _ in scores]
        order = sorted(range(len(scores)), key=lambda place: (-scores[place], tie_breakers[place]))
        wrong = self._rng.random() < self._wrong_share
        return None, order[::-1] if wrong else order, wrong

    def _pixels(self, url: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        with Image.open(io.BytesIO(_raise_for_error(self._client.get(url)).content)) as image:
            return np.asarray(image.convert("RGB"))


def _raise_for_error(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise StudioError(
            f"{response.request.method} {response.request.url.path} answered {response.status_code}: "
            f"{response.text[:300]}"
        )
    return response

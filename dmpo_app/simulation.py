"""A simulated annotator: votes through the JSON API by a taste computed from pixels, like any outside client.

For trying the loop alone and for benchmarks; a share of its answers can be made wrong on purpose.
"""

from __future__ import annotations

import io
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import numpy as np
from PIL import Image

from dmpo_app.domain import Choice
from dmpo_app.errors import BadInput, NotReady, StudioError
from dmpo_app.labeling.tastes import Taste

_WARM_UP_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class SimulatedVote:
    vote_id: int
    prompt: str
    choice: Choice
    wrong: bool
    votes_until_round: int


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
        """Cast `count` votes, yielding each as it is acknowledged. Waits for pairs while the studio warms up."""
        for _ in range(count):
            yield self._vote_on(self._next_assignment())

    def _next_assignment(self) -> dict[str, str]:
        deadline = time.monotonic() + _WARM_UP_SECONDS
        while True:
            answer = _checked(self._client.get("/api/v1/assignments", params={"count": 1}, headers=self._headers))
            assignments: list[dict[str, str]] = answer.json()["assignments"]
            if assignments:
                return assignments[0]
            if time.monotonic() > deadline:
                raise NotReady(f"the studio had no pair to judge for {_WARM_UP_SECONDS:.0f} s; see its page for why")
            time.sleep(0.5)

    def _vote_on(self, assignment: dict[str, str]) -> SimulatedVote:
        started = time.monotonic()
        left, right = self._taste.scores(
            np.stack([self._pixels(assignment["left"]), self._pixels(assignment["right"])])
        ).tolist()
        choice = Choice.TIE if left == right else Choice.LEFT if left > right else Choice.RIGHT
        wrong = choice is not Choice.TIE and self._rng.random() < self._wrong_share
        if wrong:
            choice = Choice.RIGHT if choice is Choice.LEFT else Choice.LEFT
        body = {
            "assignment": assignment["id"],
            "choice": choice.value,
            "elapsed_ms": int((time.monotonic() - started) * 1000),
        }
        answer = _checked(self._client.post("/api/v1/votes", json=body, headers=self._headers)).json()
        return SimulatedVote(answer["vote"], assignment["prompt"], choice, wrong, answer["votes_until_round"])

    def _pixels(self, url: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        with Image.open(io.BytesIO(_checked(self._client.get(url)).content)) as image:
            return np.asarray(image.convert("RGB"))


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        raise StudioError(
            f"{answer.request.method} {answer.request.url.path} answered {answer.status_code}: {answer.text[:300]}"
        )
    return answer

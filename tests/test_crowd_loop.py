"""A small crowd at a real studio: votes, rounds, duels, a version that people prove better and one they prove worse.

And votes that are taken back, and the version without them. The people here know which image a version made, by the
database; the server does not tell them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from dmpo_app.cli.main import app
from dmpo_app.store import Store
from tests.patience import PATIENCE
from tests.preloaded_studio import PreloadedStudio
from tests.tiny_pipeline import make_tiny_pipeline

NAMES = ("Ada", "Ben", "Cleo")
VOTES = 4
"""Of each person before a round."""
MOST_DUELS = 60

Session = dict[str, str]


class Crowd:
    """Some people at a studio, who take turns."""

    def __init__(self, studio: PreloadedStudio, client: httpx.Client, sessions: dict[str, Session]) -> None:
        self.studio, self.client, self._sessions = studio, client, sessions

    def vote(self) -> None:
        """Everybody votes on pairs, by sides: there is nothing to see in the images of this model."""
        self.studio.wait_for(lambda status: status["pool"] >= VOTES)
        for who in self._sessions.values():
            for _ in range(VOTES):
                self._answer(who, self._next(who), "left")

    def judge(self, *best_first: int, until: Callable[[], bool]) -> int:
        """Judge duels in turns, by an order of the versions, until something is so; returns the number of duels."""
        with Store.open(self.studio.home) as store:
            for number in range(MOST_DUELS):
                if until():
                    return number
                who = list(self._sessions.values())[number % len(self._sessions)]
                assignment = self._next(who, kind="duels")
                shown = store.assignments.get(assignment["id"])
                left, right = (
                    best_first.index(store.images.get(image_id).provenance.adapter_version)
                    for image_id in (shown.left_image_id, shown.right_image_id)
                )
                self._answer(who, assignment, "left" if left < right else "right")
        raise AssertionError(f"{MOST_DUELS} duels proved nothing: {self.judging()['comparisons']}")

    def withdraw_all(self, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.post("/api/v1/votes/withdraw", headers=self._sessions[name]).json()
        return answer

    def judging(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.get("/api/v1/judging").json()
        return answer

    def versions(self) -> dict[int, dict[str, Any]]:
        return {one["version"]: one for one in self.client.get("/api/v1/adapters").json()["adapters"]}

    def is_live(self, version: int) -> bool:
        return bool(self.versions()[version]["live"])

    def _next(self, who: Session, kind: str = "label") -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def is_there(_: dict[str, Any]) -> bool:
            answer = self.client.get("/api/v1/assignments", params={"count": 1, "kind": kind}, headers=who)
            found.extend(answer.raise_for_status().json()["assignments"])
            return bool(found)

        self.studio.wait_for(is_there)
        return found[0]

    def _answer(self, who: Session, assignment: dict[str, Any], choice: str) -> None:
        body = {"assignment": assignment["id"], "choice": choice, "elapsed_ms": 900}
        self.client.post("/api/v1/votes", json=body, headers=who).raise_for_status()


@contextmanager
def crowd_at(studio: PreloadedStudio, sessions: dict[str, Session]) -> Iterator[Crowd]:
    with studio, studio.client() as client:
        for name in NAMES:
            if name not in sessions:
                token = client.post("/api/v1/session", json={"handle": name}).json()["token"]
                sessions[name] = {"Authorization": f"Bearer {token}"}
        yield Crowd(studio, client, sessions)


@pytest.fixture
def studio_in_mode(tmp_path: Path) -> Callable[[str], PreloadedStudio]:
    (tmp_path / "train.txt").write_text("\n".join(f"a {colour} cat" for colour in ("red", "blue", "green", "pink")))
    (tmp_path / "held-out.txt").write_text("\n".join(f"{number} yellow trees" for number in range(2, 40)))
    model = make_tiny_pipeline(tmp_path / "model")

    def make(mode: str) -> PreloadedStudio:
        return PreloadedStudio(
            tmp_path / "home",
            BASE_MODEL=model,
            POOL__TRAIN_PROMPTS=tmp_path / "train.txt",
            POOL__HELD_OUT_PROMPTS=tmp_path / "held-out.txt",
            POOL__SIZE=12,
            RENDER__NUM_STEPS=1,
            MIN_VOTES=len(NAMES) * VOTES,
            ROUND__NUM_STEPS=2,
            TRAINER__POLL_SECONDS=0.1,
            TRAINER__WITHDRAWN_VOTES=2,
            JUDGING__MODE=mode,
            JUDGING__DUEL_RATE=0,
        )

    return make


@pytest.mark.timeout(6 * PATIENCE)
def test_a_crowd_votes_judges_promotes_rolls_back_and_takes_back(
    studio_in_mode: Callable[[str], PreloadedStudio], tmp_path: Path
) -> None:
    sessions: dict[str, Session] = {}
    with crowd_at(studio_in_mode("hold"), sessions) as crowd:
        crowd.vote()
        crowd.studio.wait_for(lambda _: 1 in crowd.versions())
        assert crowd.versions()[1]["state"] == "candidate"
        assert crowd.is_live(0)
        needed = crowd.judge(1, 0, until=lambda: crowd.is_live(1))
        assert needed > 5
        assert crowd.judging()["verdicts"][0]["action"] == "promoted"

    with crowd_at(studio_in_mode("rollback"), sessions) as crowd:
        crowd.vote()
        crowd.studio.wait_for(lambda status: status["live_version"] == 2)
        crowd.judge(1, 0, 2, until=lambda: crowd.is_live(1))
        assert crowd.versions()[2]["state"] == "rolled_back"
        assert [one["action"] for one in crowd.judging()["verdicts"]] == ["rolled_back", "promoted"]

        withdrawn = crowd.withdraw_all("Ada")
        assert withdrawn["versions"] == [1, 2]
        crowd.studio.wait_for(lambda status: status["live_version"] == 3)
        versions = crowd.versions()
        assert [versions[number]["taken_back"] > 0 for number in (1, 2, 3)] == [True, True, False]
        board = crowd.client.get("/api/v1/board").json()
        assert {row["version"] for row in board["rows"]} == {0, 1, 2}
        last = crowd.client.get("/api/v1/rounds").json()["rounds"][-1]
        assert (last["trigger"], last["status"]) == ("withdrawal", "published")
        assert last["reason"].startswith("replaces version 1, which learned from ")

    result = CliRunner().invoke(app, ["verify", "--home", str(tmp_path / "home")])
    words = " ".join(result.output.split())
    assert result.exit_code == 0, words
    assert f"learned from {versions[1]['taken_back']} votes taken back since, and is not live" in words
    assert "version 3 of " not in words

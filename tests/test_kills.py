"""kill -9, again and again, of a real server under votes and of its trainer in rounds.

Two kills of the server and one of its trainer; `make soak` does fifty (DMPO_SOAK_KILLS).
"""

import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import text

from dmpo_app.server.wiring import open_lineage
from dmpo_app.settings import Settings
from dmpo_app.store.db.database import Database, sqlite_url
from tests.forked_trainer import trainers_of
from tests.patience import wait_until
from tests.preloaded_studio import PreloadedStudio
from tests.tiny_pipeline import make_tiny_pipeline

KILLS = int(os.environ.get("DMPO_SOAK_KILLS", "2"))
TRAINER_KILLS = int(os.environ.get("DMPO_SOAK_KILLS", "1"))  # each costs a start of a trainer
pytestmark = [pytest.mark.soak, pytest.mark.timeout(600 + 60 * KILLS)]


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[PreloadedStudio]:
    (tmp_path / "train.txt").write_text("\n".join(f"a {colour} cat" for colour in ("red", "blue", "green", "pink")))
    (tmp_path / "held-out.txt").write_text("a yellow tree\n")
    studio = PreloadedStudio(
        tmp_path / "home",
        BASE_MODEL=make_tiny_pipeline(tmp_path / "model"),
        POOL__TRAIN_PROMPTS=tmp_path / "train.txt",
        POOL__HELD_OUT_PROMPTS=tmp_path / "held-out.txt",
        POOL__SIZE=60,
        RENDER__NUM_STEPS=1,
        MIN_VOTES=4,
        ROUND__NUM_STEPS=40,
        ROUND__SLICE_SECONDS=0.5,
        TRAINER__POLL_SECONDS=0.1,
        TRAINER__NICE=0,  # beside other tests a nice trainer trains for minutes
    )
    with studio:
        yield studio


class Voter:
    """Votes as fast as it is answered, and remembers what was acknowledged. Goes on through a server's death."""

    def __init__(self, studio: PreloadedStudio, seed: int) -> None:
        self.acknowledged: list[tuple[dict[str, Any], int]] = []
        self.headers: dict[str, str] = {}
        self._studio = studio
        self._rng = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self._studio.client() as client:
            while not self._stop.is_set():
                try:
                    self._vote(client)
                except httpx.HTTPError:  # the server was killed; that is what is tested
                    time.sleep(0.05)

    def _vote(self, client: httpx.Client) -> None:
        # A session sees a pair once, so a new one each time keeps the votes coming.
        token = client.post("/api/v1/session", json={"handle": "voter"}).json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        for assignment in client.get("/api/v1/assignments?count=4", headers=headers).json()["assignments"]:
            body = {"assignment": assignment["id"], "choice": self._rng.choice(["left", "right"]), "elapsed_ms": 5}
            answer = client.post("/api/v1/votes", json=body, headers=headers)
            if answer.status_code == 201:
                self.acknowledged.append(({"json": body, "headers": headers}, answer.json()["vote"]))


def wait_until_heard(voters: Sequence[Voter]) -> None:
    wait_until(lambda: any(voter.acknowledged for voter in voters), "something is voted before the kill")


def test_no_acknowledged_vote_is_lost_when_the_server_is_killed(studio: PreloadedStudio) -> None:
    rng = random.Random(1)
    studio.wait_for(lambda status: status["pool"] >= 4)
    for kill in range(KILLS):
        voters = [Voter(studio, 10 * kill + index) for index in range(3)]
        wait_until_heard(voters)
        time.sleep(rng.uniform(0, 1.5))  # the kill is to come at any moment of the voting
        studio.kill()
        for voter in voters:
            voter.stop()
        acknowledged = [entry for voter in voters for entry in voter.acknowledged]
        studio.start()
        with studio.client() as client:
            for request, vote in acknowledged:
                again = client.post("/api/v1/votes", **request)
                assert (again.status_code, again.json()["vote"]) == (200, vote)
    studio.stop()
    assert integrity(studio.home) == "ok"


def test_a_killed_trainer_leaves_the_page_alone_and_every_round_is_published_once(studio: PreloadedStudio) -> None:
    rng = random.Random(2)
    studio.wait_for(lambda status: status["pool"] >= 8)
    server = psutil.Process(studio.process.pid if studio.process else 0)
    with studio.client() as client:
        for kill in range(TRAINER_KILLS):
            cast_votes(client, 4)
            studio.wait_for(lambda status: status["round"] is not None)
            time.sleep(rng.uniform(0, 1.5))  # the kill is to come at any moment of a round
            for trainer in trainers_of(server):
                trainer.kill()
            assert client.get("/").status_code == 200
            status = studio.wait_for(lambda status, rounds=kill + 1: finished(status, rounds))
            assert status["last_round"]["status"] == "published", status
            assert status["live_version"] == kill + 1
    studio.stop()
    settings = Settings(home=studio.home, base_model=studio.environment["DMPO_BASE_MODEL"])
    with open_lineage(settings) as lineage:
        versions = [adapter.version for adapter in lineage.store.adapters.list(lineage.base)]
        rounds = [adapter.round_id for adapter in lineage.store.adapters.list(lineage.base)]
        folders = list(lineage.store.adapters.root(lineage.base).glob("[0-9]*"))
    assert versions == list(range(1, TRAINER_KILLS + 1))
    assert len(set(rounds)) == len(folders) == TRAINER_KILLS


def finished(status: dict[str, Any], rounds: int) -> bool:
    last = status["last_round"]
    return status["round"] is None and last is not None and last["id"] == rounds


def cast_votes(client: httpx.Client, count: int) -> None:
    token = client.post("/api/v1/session", json={"handle": "voter"}).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    for assignment in client.get(f"/api/v1/assignments?count={count}", headers=headers).json()["assignments"]:
        body = {"assignment": assignment["id"], "choice": "left", "elapsed_ms": 5}
        assert client.post("/api/v1/votes", json=body, headers=headers).status_code == 201


def integrity(home: Path) -> str:
    database = Database.open(sqlite_url(home / "studio.db"))
    try:
        with database.reader() as connection:
            return str(connection.execute(text("PRAGMA integrity_check")).scalar())
    finally:
        database.close()

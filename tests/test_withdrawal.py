"""A person takes their votes back, and a real studio trains a version without them, which goes live."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from dmpo_app.cli.main import app
from tests.preloaded_studio import PreloadedStudio
from tests.tiny_pipeline import make_tiny_pipeline

VOTES = 4


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[PreloadedStudio]:
    (tmp_path / "train.txt").write_text("\n".join(f"a {colour} cat" for colour in ("red", "blue", "green", "pink")))
    (tmp_path / "held-out.txt").write_text("a yellow tree\n")
    studio = PreloadedStudio(
        tmp_path / "home",
        BASE_MODEL=make_tiny_pipeline(tmp_path / "model"),
        POOL__TRAIN_PROMPTS=tmp_path / "train.txt",
        POOL__HELD_OUT_PROMPTS=tmp_path / "held-out.txt",
        POOL__SIZE=12,
        RENDER__NUM_STEPS=1,
        MIN_VOTES=2 * VOTES,
        ROUND__NUM_STEPS=2,
        TRAINER__POLL_SECONDS=0.1,
        TRAINER__WITHDRAWN_VOTES=2,
    )
    with studio:
        yield studio


def session(client: httpx.Client, handle: str) -> dict[str, str]:
    token = client.post("/api/v1/session", json={"handle": handle}).json()["token"]
    return {"Authorization": f"Bearer {token}"}


def vote_times(studio: PreloadedStudio, client: httpx.Client, who: dict[str, str], count: int) -> None:
    studio.wait_for(lambda status: status["pool"] >= count)
    for _ in range(count):
        [assignment] = client.get("/api/v1/assignments?count=1", headers=who).json()["assignments"]
        body = {"assignment": assignment["id"], "choice": "left", "elapsed_ms": 5}
        assert client.post("/api/v1/votes", json=body, headers=who).status_code == 201


def versions_of(client: httpx.Client) -> dict[int, dict[str, Any]]:
    return {one["version"]: one for one in client.get("/api/v1/adapters").json()["adapters"]}


def test_withdrawn_votes_start_a_round_whose_version_takes_the_live_one_s_place(studio: PreloadedStudio) -> None:
    with studio.client() as client:
        ada, ben = session(client, "Ada"), session(client, "Ben")
        vote_times(studio, client, ada, VOTES)
        vote_times(studio, client, ben, VOTES)
        studio.wait_for(lambda status: status["live_version"] == 1)
        assert versions_of(client)[1]["taken_back"] == 0

        answer = client.post("/api/v1/votes/withdraw", headers=ada).json()
        assert (answer["withdrawn"], answer["versions"]) == (VOTES, [1])
        studio.wait_for(lambda status: status["live_version"] == 2)

        versions = versions_of(client)
        assert (versions[1]["taken_back"] >= 2, versions[1]["live"]) == (True, False)
        assert (versions[2]["taken_back"], versions[2]["live"]) == (0, True)
        [_, second] = client.get("/api/v1/rounds").json()["rounds"]
        assert (second["trigger"], second["status"], second["votes"]) == ("withdrawal", "published", VOTES)
        assert second["reason"].startswith("replaces version 1, which learned from ")
        own = client.get("/api/v1/votes", headers=ada).json()["votes"]
        assert all(2 not in vote["versions"] for vote in own)

    result = CliRunner().invoke(app, ["verify", "--home", str(studio.home)])
    said = " ".join(result.output.split())
    assert result.exit_code == 0, said
    assert "version 1 of " in said
    assert f"learned from {versions[1]['taken_back']} votes taken back since, and is not live" in said
    assert "version 2 of " not in said

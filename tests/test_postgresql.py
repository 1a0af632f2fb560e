"""The whole loop on PostgreSQL: a real server, the studio and its trainer, and what is in the database in the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dmpo_app.diffusion.base_models import fingerprint
from dmpo_app.store import Store
from tests.patience import PATIENCE
from tests.postgres_server import PostgresServer, running_server
from tests.preloaded_studio import PreloadedStudio
from tests.tiny_pipeline import make_tiny_pipeline


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_server() as running:
        yield running


def test_votes_train_a_version_that_is_live_and_all_of_it_is_in_the_database(
    server: PostgresServer, tmp_path: Path
) -> None:
    (tmp_path / "train.txt").write_text("\n".join(f"a {colour} cat" for colour in ("red", "blue", "green", "pink")))
    (tmp_path / "held-out.txt").write_text("a yellow tree\n")
    model, database_url = make_tiny_pipeline(tmp_path / "model"), server.url(server.create_database())
    studio = PreloadedStudio(
        tmp_path / "home",
        DATABASE_URL=database_url,
        BASE_MODEL=model,
        POOL__TRAIN_PROMPTS=tmp_path / "train.txt",
        POOL__HELD_OUT_PROMPTS=tmp_path / "held-out.txt",
        POOL__SIZE=12,
        RENDER__NUM_STEPS=1,
        MIN_VOTES=4,
        ROUND__NUM_STEPS=4,
        ROUND__HELD_OUT_SHARE=0,
        TRAINER__POLL_SECONDS=0.1,
    )
    with studio:
        studio.wait_for(lambda status: status["pool"] >= 8)
        with studio.client() as client:
            token = client.post("/api/v1/session", json={"handle": "ada"}).json()["token"]
            headers = {"Authorization": f"Bearer {token}"}
            for _ in range(8):
                shown = client.get("/api/v1/assignments?count=1", headers=headers).json()["assignments"][0]
                body = {"assignment": shown["id"], "choice": "left", "elapsed_ms": 900}
                assert client.post("/api/v1/votes", json=body, headers=headers).status_code == 201
        live = studio.wait_for(lambda status: status["live_version"] >= 1, seconds=2 * PATIENCE)
    assert not list(studio.home.glob("*.db*")), "nothing of it went to a file"
    with Store.open(studio.home, database_url=database_url) as store:
        base = store.models.register("again", "stable_diffusion", fingerprint(str(model)))
        assert store.votes.count(base) == 8
        assert store.adapters.live_version(base) == live["live_version"]


def test_a_server_that_cannot_be_reached_is_named_without_its_password(tmp_path: Path) -> None:
    studio = PreloadedStudio(
        tmp_path / "home", DATABASE_URL="postgresql://ada:canary@127.0.0.1:9/studio", TRAIN="false"
    )
    with pytest.raises(AssertionError), studio:
        pass
    assert "postgresql://ada:***@127.0.0.1:9/studio cannot be reached" in " ".join(studio.log().split())
    assert "canary" not in studio.log()
    assert "Traceback" not in studio.log()

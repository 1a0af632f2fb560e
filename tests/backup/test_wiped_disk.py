"""A real studio is killed, its disk is wiped, and the next one goes on from the backup."""

import shutil
from pathlib import Path
from typing import Any

import httpx

from dmpo_app.backup.remotes import open_remote
from dmpo_app.backup.restoring import restore
from tests.preloaded_studio import PreloadedStudio

COMMON: dict[str, Any] = {"TRAIN": "false", "BACKUP__HANDOVER_SECONDS": 0, "POOL__SIZE": 1}


def vote(client: httpx.Client, headers: dict[str, str], count: int) -> list[tuple[dict[str, Any], int]]:
    """So many votes; each with what was sent and the number it was acknowledged by."""
    given: list[tuple[dict[str, Any], int]] = []
    while len(given) < count:
        for pair in client.get("/api/v1/assignments?count=8", headers=headers).json()["assignments"]:
            body = {"assignment": pair["id"], "choice": "left", "elapsed_ms": 700}
            answer = client.post("/api/v1/votes", json=body, headers=headers)
            assert answer.status_code == 201, answer.text
            given.append((body, answer.json()["vote"]))
    return given


def test_no_vote_acknowledged_by_the_backup_is_lost_with_the_disk(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    kept = {**COMMON, "BACKUP__URL": storage, "BACKUP__ACKNOWLEDGE": "remote",
            "BACKUP__REFUSE_AFTER_SECONDS": 2}  # fmt: skip
    with PreloadedStudio(tmp_path / "home", **kept) as studio, studio.client() as client:
        token = client.post("/api/v1/session", json={"handle": "ada"}).json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        given = vote(client, headers, 16)
        studio.kill()
        shutil.rmtree(studio.home)
        studio.start()
        for body, number in given:
            again = client.post("/api/v1/votes", json=body, headers=headers)
            assert (again.status_code, again.json()["vote"]) == (200, number)
        [pair] = client.get("/api/v1/assignments?count=1", headers=headers).json()["assignments"]
        assert client.get(pair["left"]).headers["content-type"] == "image/png"
        shutil.move(storage, tmp_path / "gone")
        studio.wait_for(lambda status: status["last_error"] is not None)
        refused = client.post("/api/v1/votes", json=given[0][0], headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (503, "backup_unreachable")
        assert refused.headers["retry-after"]
        shutil.move(tmp_path / "gone", storage)
        studio.wait_for(lambda status: status["last_error"] is None)
        more = vote(client, headers, 8)
        assert studio.stop() == 0
    restored = restore(open_remote(str(storage)), tmp_path / "third")
    assert restored is not None
    assert (restored.votes, list(restored.faults)) == (len(given) + len(more), [])

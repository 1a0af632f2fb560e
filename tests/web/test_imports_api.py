"""Imports through the API: for administrators, previewed first, on record."""

from pathlib import Path
from typing import Any

import pytest

from dmpo_app.web.routes.data_routes import DatasetUploadRoute
from tests.exchange.readers.preference_files import pick_a_pic_row, write_pick_a_pic
from tests.patience import wait_until
from tests.web.api_studio import ADMIN, ApiStudio

PATH = "/api/v1/imports"


def settled(studio: ApiStudio) -> dict[str, Any]:
    def current() -> dict[str, Any]:
        answer: dict[str, Any] = studio.client.get(PATH, headers=ADMIN).json()["current"]
        return answer

    wait_until(lambda: current()["phase"] not in ("receiving", "reading", "taking_in"), "the import has settled")
    return current()


def test_only_administrators_import(shared_studio: ApiStudio) -> None:
    who = shared_studio.session()
    for method, path in (
        ("GET", ""),
        ("POST", "?name=a.json"),
        ("POST", "/hub?name=a/b"),
        ("POST", "/take-in"),
        ("DELETE", ""),
    ):
        assert shared_studio.client.request(method, PATH + path).status_code == 401
        assert shared_studio.client.request(method, PATH + path, headers=who).status_code == 403
    assert shared_studio.client.get(PATH, headers=ADMIN).json() == {"current": None}


def test_a_file_is_sent_previewed_taken_in_and_noted(studio: ApiStudio, tmp_path: Path) -> None:
    client, store = studio.client, studio.services.store
    content = write_pick_a_pic(tmp_path / "train.parquet", [pick_a_pic_row(n) for n in range(5)]).read_bytes()
    sent = client.post(PATH, params={"name": "theirs.parquet", "as": "both"}, content=content, headers=ADMIN)
    assert sent.status_code == 202, sent.text
    before = store.pairs.count(studio.services.base)
    preview = settled(studio)
    assert (preview["phase"], preview["format"], preview["pairs"], preview["votes"]) == (
        "previewed",
        "pick-a-pic",
        5,
        5,
    )
    assert store.pairs.count(studio.services.base) == before
    assert client.post(f"{PATH}/take-in", headers=ADMIN).status_code == 202
    done = settled(studio)
    assert (done["phase"], done["pairs"], done["votes"], done["total_rows"]) == ("done", 5, 5, 5)
    assert store.pairs.count(studio.services.base) == before + 5
    [entry] = store.audit.list()
    assert (entry.act, entry.subject) == ("import", "theirs.parquet: 5 pairs, 5 votes")
    assert client.post(f"{PATH}/take-in", headers=ADMIN).status_code == 409


def test_nonsense_is_refused_without_a_path_of_this_machine(studio: ApiStudio) -> None:
    client = studio.client
    for query in ("", "?name=a.pkl", "?name=a.json&as=tarot", "?name=", "?name=a%0Ab.json", "?name=a%E2%80%AEb.json"):
        assert client.post(PATH + query, content=b"{}", headers=ADMIN).status_code == 422, query
    for name in ("/etc/passwd", "..", "a/b/c", ""):
        assert client.post(f"{PATH}/hub", params={"name": name}, headers=ADMIN).status_code == 422
    assert client.post(PATH, params={"name": "a.json"}, content=b'{"odd": 1}', headers=ADMIN).status_code == 202
    failed = settled(studio)
    assert failed["phase"] == "failed"
    assert str(studio.services.store.home) not in failed["problem"]
    assert client.delete(PATH, headers=ADMIN).json() == {"current": None}
    assert client.delete(PATH, headers=ADMIN).status_code == 404


def test_a_body_that_is_too_large_is_refused_while_it_comes(studio: ApiStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DatasetUploadRoute, "max_body_bytes", 1000)
    answer = studio.client.post(PATH, params={"name": "a.json"}, content=bytes(2000), headers=ADMIN)
    assert answer.status_code == 413
    assert settled(studio)["phase"] == "failed"

"""Exports through the API: for administrators, bounded, under names that nobody can trace."""

import io
import json
import tempfile
import zipfile
from pathlib import Path

import pytest

from dmpo_app.exchange.exporting import FORMATS
from dmpo_app.web.routes.data_routes import ExportFormat
from tests.web.api_studio import ADMIN, ApiStudio


def test_only_administrators_get_one(shared_studio: ApiStudio) -> None:
    path = "/api/v1/exports/votes-jsonl"
    assert shared_studio.client.get(path).status_code == 401
    assert shared_studio.client.get(path, headers=shared_studio.session()).status_code == 403


def test_every_format_comes_as_a_zip_that_is_the_same_each_time_and_leaves_nothing_behind(
    studio: ApiStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = sorted(tmp_path.iterdir())
    studio.vote_times(6)
    assert [one.value for one in ExportFormat] == [form.name for form in FORMATS]
    for form in FORMATS:
        answers = [studio.client.get(f"/api/v1/exports/{form.name}", headers=ADMIN) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
        assert answers[0].content == answers[1].content
        assert answers[0].headers["content-disposition"] == f'attachment; filename="{form.name}.zip"'
        with zipfile.ZipFile(io.BytesIO(answers[0].content)) as file:
            manifest = json.loads(file.read("manifest.json"))
            assert {"README.md", "manifest.json"} < set(file.namelist())
        assert (manifest["rows"], manifest["options"]["with_images"]) == (6, False)
    for unwanted in ("bytes=zz", "bytes=99999999-", "pages=1", "bytes=0-3"):
        whole = studio.client.get("/api/v1/exports/votes-jsonl", headers={**ADMIN, "Range": unwanted})
        assert (whole.status_code, whole.content[:2]) == (200, b"PK"), "it is sent whole, whatever part is asked for"
    assert sorted(tmp_path.iterdir()) == before


def test_filters_go_with_it_and_nonsense_is_refused(studio: ApiStudio) -> None:
    studio.vote_times(3)
    path = "/api/v1/exports/votes-jsonl"

    def rows(**wanted: str) -> int:
        answer = studio.client.get(path, params=wanted, headers=ADMIN)
        assert answer.status_code == 200, answer.text
        with zipfile.ZipFile(io.BytesIO(answer.content)) as file:
            return int(json.loads(file.read("manifest.json"))["rows"])

    assert (rows(), rows(until="2020-01-01T00:00:00"), rows(version="7"), rows(question="fit")) == (3, 0, 0, 0)
    assert studio.client.get("/api/v1/exports/tarot", headers=ADMIN).status_code == 422
    for wanted in ({"since": "yesterday"}, {"version": "-1"}, {"min_agreement": "2"}, {"question": "why"}):
        assert studio.client.get(path, params=wanted, headers=ADMIN).status_code == 422

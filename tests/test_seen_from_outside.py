"""A running studio as a cluster sees it: its probes and metrics beside the page, and logs that a machine reads."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.patience import wait_until
from tests.preloaded_studio import PreloadedStudio
from tests.studio_process import StudioProcess


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioProcess]:
    home = tmp_path_factory.mktemp("outside") / "home"
    with PreloadedStudio(
        home, LOG_FORMAT="json", PUBLIC="true", TRAIN="false", METRICS_TOKEN="scrape-me-every-15-s"
    ) as running:
        yield running


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def test_probes_and_metrics_stand_beside_the_page(studio: StudioProcess) -> None:
    with studio.client() as client:
        assert client.get("/healthz").json() == {"status": "alive"}
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["store"], ready.json()["trainer"]) == (200, "ok", "off")
        assert client.get("/metrics").status_code == 401
        page = client.get("/metrics", headers={"Authorization": "Bearer scrape-me-every-15-s"})
        assert page.headers["content-type"].startswith("text/plain")
        assert 'dmpo_requests_total{method="GET",route="/readyz",status="200"}' in page.text
        assert "process_open_fds" in page.text
        assert client.get("/").status_code == 200


def test_every_line_of_the_logs_is_an_object(studio: StudioProcess) -> None:
    wait_until(lambda: f":{studio.port}" in studio.log(), "the studio has told where it is")
    lines = lines_of(studio.log_path)
    assert any(f":{studio.port}" in str(line["message"]) for line in lines)
    for line in lines:
        assert {"time", "level", "logger", "message", "process"} <= set(line), line
        assert datetime.fromisoformat(str(line["time"])).tzinfo is not None

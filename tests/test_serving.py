"""The server as its owner meets it: taken homes and ports, restarts, signals, a trainer that dies."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from dmpo_app.errors import SetupError
from dmpo_app.server.wiring import build_renderer, open_lineage
from dmpo_app.settings import RenderSettings, Settings
from tests.forked_trainer import trainers_of
from tests.patience import PATIENCE, wait_until
from tests.preloaded_process import PreloadedPython
from tests.preloaded_studio import PreloadedStudio
from tests.studio_process import PROJECT_ROOT, StudioProcess


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioProcess]:
    with PreloadedStudio(tmp_path_factory.mktemp("studio") / "home") as running:
        yield running


def session(client: httpx.Client) -> dict[str, str]:
    return {"Authorization": f"Bearer {client.post('/api/v1/session', json={'handle': 'me'}).json()['token']}"}


def test_a_fresh_home_can_be_voted_on_at_once(studio: StudioProcess) -> None:
    with studio.client() as client:
        headers = session(client)
        [assignment] = client.get("/api/v1/assignments?count=1", headers=headers).json()["assignments"]
        assert client.get(assignment["left"]).headers["content-type"] == "image/png"
        body = {"assignment": assignment["id"], "choice": "left", "elapsed_ms": 900}
        assert client.post("/api/v1/votes", json=body, headers=headers).status_code == 201


def test_a_second_server_on_the_same_home_says_where_the_first_one_is(studio: StudioProcess, tmp_path: Path) -> None:
    errors = tmp_path / "errors.log"
    second = PreloadedPython(
        "dmpo_app.cli", ["serve", "--port", "0"], environment=studio.environment, stdout=errors, stderr=errors
    )
    assert second.wait(PATIENCE) == 1
    message = " ".join(errors.read_text().split())
    assert f"127.0.0.1:{studio.port}" in message
    assert "Traceback" not in message


def test_a_model_without_a_safety_checker_is_refused_where_one_is_wanted(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", render=RenderSettings(safety_checker="on"))
    with (
        open_lineage(settings) as lineage,
        pytest.raises(SetupError, match=r"pocket comes without a safety checker.*auto or off"),
    ):
        build_renderer(settings, lineage)


def trainer_of(studio: StudioProcess) -> list[psutil.Process]:
    """The server's children, once it has any."""
    assert studio.process is not None
    server = psutil.Process(studio.process.pid)
    wait_until(lambda: trainers_of(server), "the server has started its trainer")
    return server.children(recursive=True)


def test_the_trainer_ends_with_a_server_that_is_stopped_or_killed_and_a_restart_knows_everybody(tmp_path: Path) -> None:
    with PreloadedStudio(tmp_path / "home") as studio, studio.client() as client:
        headers = session(client)
        before = client.get("/api/v1/assignments?count=3", headers=headers).json()["assignments"]
        children = trainer_of(studio)
        assert studio.stop() == 0
        assert psutil.wait_procs(children, timeout=PATIENCE)[1] == []
        studio.start()
        after = client.get("/api/v1/assignments?count=3", headers=headers).json()["assignments"]
        assert [one["id"] for one in after] == [one["id"] for one in before]
        children = trainer_of(studio)
        studio.kill()
        assert psutil.wait_procs(children, timeout=PATIENCE)[1] == []


def test_a_server_whose_model_still_loads_ends_cleanly(tmp_path: Path) -> None:
    studio = StudioProcess(tmp_path / "home").start()
    studio.wait_for(lambda status: status["renderer"]["phase"] == "loading")
    assert studio.stop() == 0
    assert "stopping" in studio.log()
    assert "terminate called" not in studio.log()


def test_no_secret_reaches_a_log(tmp_path: Path) -> None:
    provider: dict[str, Any] = {
        "OIDC_ISSUER": "https://127.0.0.1:9",
        "CLIENT_ID": "a studio",
        "CLIENT_SECRET": "canary-secret",
    }
    settings = {f"IDENTITY__{name}": value for name, value in provider.items()}
    studio = PreloadedStudio(tmp_path / "home", **settings, PUBLIC="true", LABELING__ACCESS="open")
    del studio.environment["DMPO_ADMIN_TOKEN"]
    with studio, studio.client() as client:
        headers = session(client)
        client.post("/api/v1/rounds", headers={"Authorization": "Bearer wrong-canary-token"})
        client.get("/api/v1/assignments?count=1", headers=headers)
        assert client.post("/api/v1/login").status_code == 503
        assert client.get("/login/callback?state=canary-state&code=canary-code").status_code == 403
        studio.wait_for(lambda _: (studio.home / "trainer.log").exists())
    written = studio.log_path.read_text() + (studio.home / "trainer.log").read_text()
    assert "canary" not in written
    assert headers["Authorization"].split()[1] not in written
    words = " ".join(written.split())
    assert "set DMPO_ADMIN_TOKEN" in words
    assert "1 wrong administrators' token, the last from 127.0.0.0/24" in words
    assert "open to everybody: one person can take part as many" in words


def test_the_page_does_not_wait_for_torch_while_the_trainer_is_set_up() -> None:
    code = (
        "import sys; from dmpo_app.server.wiring import build_trainer; from dmpo_app.settings import Settings; "
        "import dmpo_app.server.run; build_trainer(Settings()); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=False).returncode == 0

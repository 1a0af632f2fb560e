"""A server that runs out of open files answers 503 to those who are connected, and goes on by itself."""

import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from tests.patience import PATIENCE, wait_until
from tests.studio_process import PROJECT_ROOT, free_port

FEW = 80


@pytest.fixture
def address(prepared_home: Path, tmp_path: Path) -> Iterator[str]:
    """A server that may have few files open, and cannot raise that."""
    home, port = Path(shutil.copytree(prepared_home, tmp_path / "home")), free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.web.small_server", str(home), str(port)],
        cwd=PROJECT_ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, FEW)),
    )
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{url}/healthz", timeout=PATIENCE).status_code == 200
        return False

    try:
        wait_until(is_up, "the server is up")
        yield url
    finally:
        process.kill()
        process.wait()


def hold_connections(stack: ExitStack, address: str, count: int) -> None:
    host, port = address.removeprefix("http://").split(":")
    for _ in range(count):
        with suppress(OSError):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE))


def test_with_all_files_open_whoever_is_connected_gets_503_and_all_is_well_afterwards(address: str) -> None:
    with httpx.Client(base_url=address, timeout=PATIENCE) as client, ExitStack() as idle:
        token = client.post("/api/v1/session", json={"handle": "Ada"}).json()["token"]
        who = {"Authorization": f"Bearer {token}"}
        [shown] = client.get("/api/v1/assignments", headers=who).json()["assignments"]
        hold_connections(idle, address, 2 * FEW)
        wait_until(lambda: client.get(shown["left"]).status_code != 200, "no file can be opened any more")
        answer = client.get(shown["left"])
        assert (answer.status_code, answer.json()["code"]) == (503, "exhausted")
        assert int(answer.headers["retry-after"]) > 0
        assert client.get("/healthz").status_code == 200
        body = {"assignment": shown["id"], "choice": "left", "elapsed_ms": 900}
        assert client.post("/api/v1/votes", json=body, headers=who).status_code == 201, "votes need no file"
        idle.close()
        wait_until(lambda: client.get(shown["left"]).status_code == 200, "files can be opened again")
        with httpx.Client(base_url=address, timeout=PATIENCE) as newcomer:
            wait_until(lambda: newcomer.get("/readyz").status_code == 200, "newcomers are served")
        assert client.get("/api/v1/status").json()["pool"] == 11


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be() -> None:
    code = (
        "import resource; from dmpo_app.io.processes import raise_open_files_limit as work; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512)); work(); work(); "
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT_ROOT)
    assert done.stdout.strip() == "(512, 512)"

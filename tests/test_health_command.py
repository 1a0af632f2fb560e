"""`dmpo health` and `dmpo simulate` find the studio of the settings, and ask this machine through no proxy."""

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from dmpo_app.cli.health import is_on_this_machine
from dmpo_app.cli.main import app
from tests.studio_process import free_port


class Studio(http.server.ThreadingHTTPServer):
    """Answers what `statuses` has for a path, else 404; keeps the paths that were asked for."""

    daemon_threads = True

    def __init__(self, host: str, statuses: dict[str, int]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), Handler)
        self.statuses = statuses
        self.asked: list[str] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Studio

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.statuses.get(self.path, 404))
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""


@contextmanager
def studio(host: str, **statuses: int) -> Iterator[Studio]:
    server = Studio(host, statuses)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture(autouse=True)
def behind_a_dead_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)


@pytest.mark.parametrize(
    ("listens", "host", "root"),
    [
        ("127.0.0.1", "127.0.0.1", ""), ("127.0.0.1", "0.0.0.0", "/studio"), ("::1", "::1", "/a/b"),
        ("::1", "[::1]", ""), ("127.0.0.1", "localhost", "/api"), ("127.0.0.1", "::", ""),
    ],
)  # fmt: skip
def test_the_studio_of_the_settings_is_asked_past_the_proxy(
    listens: str, host: str, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with studio(listens, **{f"{root}/healthz": 200}) as server:
        monkeypatch.setenv("DMPO_HOST", host)
        monkeypatch.setenv("DMPO_PORT", str(server.server_port))
        monkeypatch.setenv("DMPO_ROOT_PATH", root)
        code, output = run("health")
        assert (code, server.asked) == (0, [f"{root}/healthz"]), output
        code, output = run("simulate", "warm")
        assert (code, server.asked[1:]) == (1, [f"{root}/api/v1/session"]), output


def test_a_studio_that_knows_no_healthz_is_asked_for_its_status_and_a_sick_one_is_told() -> None:
    with studio("127.0.0.1", **{"/api/v1/status": 200}) as server:
        assert run("health", "--url", f"http://127.0.0.1:{server.server_port}")[0] == 0
        server.statuses = {"/healthz": 503}
        code, output = run("health", "--url", f"http://localhost:{server.server_port}/")
        assert (code, "answered 503" in output) == (1, True)
        server.statuses = {}
        code, output = run("health", "--url", f"http://localhost:{server.server_port}/")
        assert (code, "is no studio" in output) == (1, True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "http://[::1]:{port}", "hello", "http://[::1", "ftp://x"])
def test_where_nobody_answers_is_said_in_one_line(url: str) -> None:
    code, output = run("health", "--url", url.format(port=free_port()))
    assert code == 1
    assert output.startswith("error: ")
    assert output.count("\n") == 1


def test_only_this_machine_is_asked_past_the_proxy() -> None:
    here = [
        "http://localhost",
        "http://studio.localhost:1/",
        "http://127.3.2.1:7860/x",
        "http://[::1]:7860",
        "http://0.0.0.0",
    ]
    elsewhere = ["http://studio.example.org", "http://10.0.0.1", "http://[fd00::1]", "http://localhost.example.org"]
    assert [url for url in here if not is_on_this_machine(url)] == []
    assert [url for url in elsewhere if is_on_this_machine(url)] == []

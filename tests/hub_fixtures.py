"""Fixtures with a Hub of one's own: a real server process that speaks the Hub's API.

Import `hub` and `hub_process` in a conftest.py or a test file: one server a session, empty for each test. In this
process `hub.api()` talks to it; what reads HF_ENDPOINT at import runs in a subprocess with `hub.environment(...)`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi

from tests.hub_server import TOKEN, USER
from tests.patience import PATIENCE
from tests.studio_process import PROJECT_ROOT, free_port


class HubProcess:
    """The server, and what tests want to know of it."""

    token, user = TOKEN, USER

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        with (folder / "hub.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.hub_server", str(self.port)]
            self._process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=log, stderr=log)

    def wait(self) -> HubProcess:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self._folder / "hub.log").read_text()
            try:
                httpx.get(f"{self.url}/_test/asked", timeout=PATIENCE)
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return self
        raise AssertionError("the hub did not start")

    def api(self) -> HfApi:
        return HfApi(endpoint=self.url, token=self.token)

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a process for which this is the Hub; its cache and its saved token are its own."""
        own = {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": self.token,
            "HF_HOME": str(self._folder / "hf-home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        return {**os.environ, **own, **more}

    def asked(self, *, method: str = "", containing: str = "") -> int:
        """The number of requests of this method with this in their path; uploads of contents are `PUT /lfs`."""
        counts: dict[str, int] = httpx.get(f"{self.url}/_test/asked", timeout=PATIENCE).json()
        return sum(n for what, n in counts.items() if what.startswith(method) and containing in what)

    def secrets(self, space: str) -> dict[str, str]:
        """The values of a Space's secrets, which the real Hub tells nobody."""
        answer: dict[str, str] = httpx.get(f"{self.url}/_test/secrets/{space}", timeout=PATIENCE).json()
        return answer

    def fail(self, status: int, *, times: int) -> None:
        """Answer the next requests with an HTTP status."""
        httpx.post(
            f"{self.url}/_test/fail", params={"status": status, "times": times}, timeout=PATIENCE
        ).raise_for_status()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def hub_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    process = HubProcess(tmp_path_factory.mktemp("hub"))
    try:
        yield process.wait()
    finally:
        process.stop()


@pytest.fixture
def hub(hub_process: HubProcess, monkeypatch: pytest.MonkeyPatch) -> HubProcess:
    """An empty Hub."""
    # Read at import by huggingface_hub; its pure-Python upload is what the server speaks.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    httpx.post(f"{hub_process.url}/_test/reset", timeout=PATIENCE).raise_for_status()
    return hub_process

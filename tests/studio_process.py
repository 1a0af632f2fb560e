"""A real studio in a process of its own, on a free port, for tests and benchmarks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import httpx

from tests.patience import PATIENCE

PROJECT_ROOT = Path(__file__).resolve().parent.parent
ADMIN_TOKEN = "an-administrators-token-for-tests"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running(Protocol):
    """A process as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, number: int, /) -> None: ...

    def kill(self) -> None: ...


NO_EFFECTS = {"DMPO_JUDGING__EFFECT_PROMPTS": "0"}
"""The images by which versions are compared would take the processor from what is tested."""


class StudioProcess:
    """`dmpo serve` on `home`. Settings are given as DMPO_* names without the prefix, e.g. MIN_VOTES=8."""

    def __init__(self, home: Path, *, port: int | None = None, **settings: Any) -> None:
        self.home = home
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = home.parent / f"{home.name}.log"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DMPO_")}
        own = {f"DMPO_{name}": str(value) for name, value in settings.items()}
        self.environment = {**inherited, "DMPO_HOME": str(home), "DMPO_ADMIN_TOKEN": ADMIN_TOKEN, **NO_EFFECTS, **own}
        self.process: Running | None = None

    def start(self, *, wait_seconds: float = PATIENCE) -> StudioProcess:
        """Start, and return when the API answers; nothing is left running when it does not."""
        self.process = self._spawn(["serve", "--port", str(self.port)])
        try:
            self.wait_for(lambda status: True, seconds=wait_seconds)
        except AssertionError:
            self.process.kill()
            raise
        return self

    def _spawn(self, arguments: list[str]) -> Running:
        command = [sys.executable, "-m", "dmpo_app.cli", *arguments]
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                command, cwd=PROJECT_ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def wait_for(self, condition: Any, *, seconds: float = PATIENCE) -> dict[str, Any]:
        """Poll GET /status until `condition(status)` holds; returns that status. Raises AssertionError in time."""
        deadline = time.monotonic() + seconds
        status: dict[str, Any] | None = None
        while time.monotonic() < deadline:
            assert self.process is None or self.process.poll() is None, f"the studio stopped:\n{self.log()}"
            try:
                status = httpx.get(f"{self.url}/api/v1/status", timeout=PATIENCE).raise_for_status().json()
            except httpx.HTTPError:
                status = None
            if status is not None and condition(status):
                return status
            time.sleep(0.1)
        raise AssertionError(f"not within {seconds} s; last status: {status}\n{self.log()}")

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE)

    @property
    def admin(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {ADMIN_TOKEN}"}

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:]

    def kill(self) -> None:
        """Kill -9 the server alone; its trainer must notice by itself."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, *, seconds: float = PATIENCE) -> int:
        """SIGTERM, as a service manager does; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def __enter__(self) -> StudioProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except (subprocess.TimeoutExpired, TimeoutError):
                self.kill()

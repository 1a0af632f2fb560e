"""Starts in unkind surroundings: dead proxies, IPv6, a busy machine, a sub-path, another folder, a clock that is wrong.

    python -m benchmarks.starts                    all of them
    python -m benchmarks.starts --only "busy"      those with this in their name

Each start is a whole `dmpo serve` on a fresh home; it is up when the API answers, and a vote is taken then. The clock
needs libfaketime (`apt install faketime`); without it, or without IPv6, a start is skipped, and says so.
"""

import argparse
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.report import print_table
from tests.studio_process import PROJECT_ROOT, free_port

PATIENCE_SECONDS = 180.0
DEAD_PROXY = "http://127.0.0.1:9"
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@dataclass(frozen=True)
class Surroundings:
    """The surroundings of a start. `prefix`: a command that starts it; `busy`: processes that compute beside it."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    root_path: str = ""
    prefix: Sequence[str] = ()
    busy: int = 0
    elsewhere: bool = False
    is_refused: bool = False
    """True where a sentence is what is wanted."""
    missing: str = ""
    """Why it cannot be tried here."""


def surroundings() -> list[Surroundings]:
    """All of them, in the order of the table."""
    no_ipv6 = "" if _has_ipv6() else "no IPv6 here"
    no_faketime = "" if shutil.which("faketime") else "no faketime here (apt install faketime)"
    clock = ("faketime", "-m", "-f")
    return [
        Surroundings("nothing unkind"),
        Surroundings("a dead HTTP_PROXY", dict.fromkeys(PROXY_VARIABLES, DEAD_PROXY)),
        Surroundings("a garbled HTTP_PROXY", dict.fromkeys(PROXY_VARIABLES, "::::garbage"), is_refused=True),
        Surroundings("DMPO_HOST=::", host="::", missing=no_ipv6),
        Surroundings("DMPO_HOST=::1", host="::1", missing=no_ipv6),
        Surroundings("30 busy processes", busy=30),
        Surroundings("below /a/b", root_path="/a/b"),
        Surroundings("app.py from another folder", elsewhere=True),
        Surroundings("clock two days ahead", prefix=(*clock, "+2d"), missing=no_faketime),
        Surroundings("clock two days back", prefix=(*clock, "-2d"), missing=no_faketime),
    ]


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def start(found: Surroundings, folder: Path) -> tuple[str, str, str]:
    """One row: the name, the seconds until it is up or the sentence why not, and if a vote is taken."""
    if found.missing:
        return found.name, f"skipped: {found.missing}", ""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DMPO_")}
    environment |= found.environment | {
        "PYTHONPATH": str(PROJECT_ROOT), "DMPO_HOME": str(folder / "home"), "DMPO_HOST": found.host,
        "DMPO_PORT": str(port), "DMPO_ROOT_PATH": found.root_path,
        "DMPO_ADMIN_TOKEN": "an-administrators-token-for-benchmarks",
    }  # fmt: skip
    own = [str(PROJECT_ROOT / "app.py")] if found.elsewhere else ["-m", "dmpo_app.cli", "serve"]
    host = f"[{found.host}]" if found.host == "::1" else "localhost" if found.host == "::" else found.host
    log = folder / "log"
    with busy_processes(found.busy), log.open("wb") as output:
        started = time.monotonic()
        server = subprocess.Popen(
            [*found.prefix, sys.executable, *own],
            cwd=folder if found.elsewhere else PROJECT_ROOT, env=environment, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            with httpx.Client(
                base_url=f"http://{host}:{port}{found.root_path}/", timeout=60, trust_env=False
            ) as client:
                while not _is_up(client):
                    if server.poll() is not None or time.monotonic() - started > PATIENCE_SECONDS:
                        last = (log.read_text(errors="replace").strip().splitlines() or ["without a word"])[-1]
                        is_said = found.is_refused and last.startswith("error: HTTP_PROXY is no address")
                        return found.name, last, "refused, as it should be" if is_said else "no"
                    time.sleep(0.05)
                return found.name, f"{time.monotonic() - started:.1f} s", _vote(client)
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # faketime is the parent of what it starts
            server.wait(PATIENCE_SECONDS)


def _is_up(client: httpx.Client) -> bool:
    try:
        return client.get("api/v1/status").is_success
    except httpx.TransportError:
        return False


def _vote(client: httpx.Client) -> str:
    token = client.post("api/v1/session", json={"handle": "me"}).raise_for_status().json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    [assignment] = client.get("api/v1/assignments?count=1", headers=headers).raise_for_status().json()["assignments"]
    body = {"assignment": assignment["id"], "choice": "left", "elapsed_ms": 900}
    status = client.post("api/v1/votes", json=body, headers=headers).status_code
    return "yes" if status == 201 else f"answered {status}"


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Processes that compute without end beside what is inside."""
    processes = [multiprocessing.Process(target=_compute, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def _compute() -> None:
    while True:
        sum(range(100_000))


def main() -> int:
    """Start in all of them; returns 1 where one is not up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="starts with this in their name")
    arguments = parser.parse_args()
    rows = []
    for found in surroundings():
        if arguments.only in found.name:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(start(found, Path(folder)))
                print("; ".join(rows[-1]), flush=True)
    print_table(("start", "up after", "a vote taken"), rows)
    return int(any(vote not in ("yes", "", "refused, as it should be") for _, _, vote in rows))


if __name__ == "__main__":
    sys.exit(main())

"""Faults under votes: PostgreSQL restarted, S3 out of reach, the clock set back, the trainer frozen, the disk full.

    python -m benchmarks.faults [--only NAME ...] [--seconds 30]

Twelve annotators vote as fast as they are answered, and send a vote again until it is answered, as the page does. The
fault comes after a third of the time and goes after another. Then the server is killed: every vote that it acknowledged
has to be in the database, once. A fault that this machine cannot make (libfaketime, a tmpfs) is left out, and said.
"""

import argparse
import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from sqlalchemy import create_engine, text

from benchmarks.raw_http import Connection
from benchmarks.report import machine, print_table
from benchmarks.seeded_home import quiet_studio, rested, seed
from tests.patience import wait_until
from tests.postgres_server import running_server
from tests.studio_process import StudioProcess, free_port

ANNOTATORS = 12
PAIRS = 400
PAUSE = 0.1
"""Seconds between two votes of one annotator, and before a vote is sent again."""
TMPFS_MB = 60


class FaultUnavailableError(Exception):
    """A fault that this machine cannot make."""


@dataclass
class Taken:
    """Acknowledged votes: their ids and times (time.monotonic), and the refusals on the way there."""

    ids: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    refused: int = 0
    unanswered: int = 0
    other: set[int] = field(default_factory=set)
    """Statuses that are neither an acknowledgement nor a refusal to be tried again."""

    def longest_gap(self) -> float:
        return max((after - before for before, after in zip(self.times, self.times[1:], strict=False)), default=0.0)

    def resumed_after(self, moment: float) -> float:
        return next((at - moment for at in self.times if at >= moment), float("inf"))


async def annotate(url: str, name: str, until: float, taken: Taken) -> None:
    """One annotator: assignments one by one, each vote sent again until it is answered for good."""
    connection, rng = Connection(url), random.Random(name)

    async def ask(method: str, path: str, body: object, headers: dict[str, str]) -> tuple[int, dict[str, object]]:
        while True:
            try:
                answer = await asyncio.wait_for(connection.request(method, path, body=body, headers=headers), 30)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                taken.unanswered += 1
            else:
                if answer.status not in (429, 500, 502, 503, 504, 507):
                    return answer.status, answer.json()
                taken.refused += 1
                if answer.status == 500:
                    taken.other.add(500)
            await asyncio.sleep(PAUSE)

    _, session = await ask("POST", "/api/v1/session", {"handle": name}, {})
    headers = {"Authorization": f"Bearer {session['token']}"}
    while time.monotonic() < until:
        _, listed = await ask("GET", "/api/v1/assignments?count=1", None, headers)
        items = listed.get("assignments")
        if not isinstance(items, list) or not items:
            raise RuntimeError(f"no pair is left for {name}: {listed}")
        body = {"assignment": items[0]["id"], "choice": rng.choice(["left", "right"]), "elapsed_ms": 900}
        status, vote = await ask("POST", "/api/v1/votes", body, headers)
        if status in (200, 201):
            taken.ids.append(int(str(vote["vote"])))
            taken.times.append(time.monotonic())
        elif status != 410:  # an assignment that expired while the clock jumped is no fault
            taken.other.add(status)
        await asyncio.sleep(PAUSE)
    connection.close()


@dataclass(frozen=True)
class Fault:
    """A studio whose surroundings can be broken and mended."""

    studio: StudioProcess
    database_url: str
    begin: Callable[[], object]
    end: Callable[[], object]
    is_rendering: bool = True
    """False where it cannot render: its threads then wait by the clock that is wrong from the start."""
    is_mended: Callable[[], bool] = lambda: True
    """True where all goes on by itself; looked at after the votes."""


async def vote_through(fault: Fault, seconds: float) -> tuple[Taken, float]:
    """Vote for so long, with the fault in the middle third; returns what was taken and when the fault ended."""
    taken, started = Taken(), time.monotonic()
    until = started + seconds
    people = [asyncio.create_task(annotate(fault.studio.url, f"voter {n}", until, taken)) for n in range(ANNOTATORS)]
    await asyncio.sleep(seconds / 3)
    await asyncio.to_thread(fault.begin)
    await asyncio.sleep(seconds / 3)
    await asyncio.to_thread(fault.end)
    ended = time.monotonic()
    waiting: Awaitable[object] = asyncio.gather(*people)
    await asyncio.wait_for(waiting, seconds + 120)
    return taken, ended


def votes_on_record(database_url: str) -> list[int]:
    """Ids of the votes in the database, of a home whose studio has stopped."""
    engine = create_engine(database_url)
    with engine.connect() as connection:
        ids = [int(row[0]) for row in connection.execute(text("SELECT id FROM votes ORDER BY id"))]
    engine.dispose()
    return ids


def sqlite_url(home: Path) -> str:
    return f"sqlite:///{home / 'studio.db'}"


@contextmanager
def postgresql_restarted(folder: Path) -> Iterator[Fault]:
    """PostgreSQL is stopped at once, as by a crash, and started again."""
    with running_server() as server:
        url = server.url(server.create_database())
        home = seed(folder / "home", PAIRS, size=32, database_url=url)
        with quiet_studio(home, DATABASE_URL=url) as studio:
            yield Fault(studio, url, server.stop, server.start)


@contextmanager
def s3_unreachable(folder: Path) -> Iterator[Fault]:
    """The S3 server that keeps the backup is frozen, and goes on later; votes are refused after two seconds."""
    home, port = seed(folder / "home", PAIRS, size=32), free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
                   "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
    os.environ.update(environment)  # of the studio, which is started with it
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: _is_bucket_made(address), "the S3 server is up")
            backup = {"BACKUP__URL": "s3://votes/studio", "BACKUP__LOG_SECONDS": 1, "BACKUP__REFUSE_AFTER_SECONDS": 2}
            with quiet_studio(home, **backup) as studio:
                process = psutil.Process(server.pid)
                yield Fault(studio, sqlite_url(home), process.suspend, process.resume)
        finally:
            server.kill()
            for name in environment:
                del os.environ[name]


def _is_bucket_made(address: str) -> bool:
    try:
        return httpx.put(f"{address}/votes", timeout=5).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def clock_set_back(folder: Path) -> Iterator[Fault]:
    """The server's clock jumps two days back, and forth again."""
    library = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
    if library is None:
        raise FaultUnavailableError("libfaketime is not installed (apt install libfaketime)")
    home, offset = seed(folder / "home", PAIRS, size=32), folder / "offset"
    offset.write_text("+0\n")
    studio = quiet_studio(home)
    studio.environment.update(
        LD_PRELOAD=str(library),
        FAKETIME_TIMESTAMP_FILE=str(offset),
        FAKETIME_CACHE_DURATION="1",
        DONT_FAKE_MONOTONIC="1",
    )
    with studio:
        yield Fault(studio, sqlite_url(home), lambda: offset.write_text("-2d\n"), lambda: offset.write_text("+0\n"),
            is_rendering=False)  # fmt: skip


@contextmanager
def trainer_frozen(folder: Path) -> Iterator[Fault]:
    """The trainer is stopped (SIGSTOP) and never continued: the studio has to tell it and start another one."""
    home = seed(folder / "home", PAIRS, size=32)
    with quiet_studio(home, TRAIN="true", MIN_VOTES=1_000_000, TRAINER__SILENT_SECONDS=5) as studio:
        studio.wait_for(lambda status: status["trainer"]["running"])
        assert studio.process is not None
        children = psutil.Process(studio.process.pid).children()
        trainer = next(child for child in children if any("trainer_process" in part for part in child.cmdline()))

        def is_mended() -> bool:
            state = studio.wait_for(lambda status: status["trainer"]["running"])["trainer"]
            return bool(state["restarts"]) and not trainer.is_running()

        yield Fault(studio, sqlite_url(home), trainer.suspend, lambda: None, is_mended=is_mended)


@contextmanager
def disk_full(folder: Path) -> Iterator[Fault]:
    """The home's disk, a small tmpfs, is filled to the last byte, and emptied again."""
    place, ballast = folder / "disk", folder / "disk" / "ballast"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={TMPFS_MB}m", "tmpfs", str(place)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        raise FaultUnavailableError("this user may not mount a tmpfs")
    try:
        home = seed(place / "home", PAIRS, size=32)

        def fill() -> None:
            with ballast.open("wb", buffering=0) as file:
                try:
                    while file.write(b"\0" * 4096):
                        pass
                except OSError:
                    return

        with quiet_studio(home) as studio:
            yield Fault(studio, sqlite_url(home), fill, ballast.unlink)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


FAULTS = {
    "PostgreSQL restarted": postgresql_restarted,
    "S3 out of reach (backup)": s3_unreachable,
    "clock two days back": clock_set_back,
    "trainer frozen": trainer_frozen,
    "disk full": disk_full,
}


def measure(name: str, seconds: float) -> list[object]:
    """One row of the table. Raises FaultUnavailableError where this machine cannot make the fault."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="faults-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        fault = stack.enter_context(FAULTS[name](folder))
        if fault.is_rendering:
            rested(fault.studio)
        taken, ended = asyncio.run(vote_through(fault, seconds))
        is_mended = fault.is_mended()
        fault.studio.kill()
        recorded = votes_on_record(fault.database_url)
    lost, doubled = len(set(taken.ids) - set(recorded)), len(recorded) - len(set(taken.ids))
    return [
        name, len(set(taken.ids)), lost, doubled, taken.refused, taken.unanswered, f"{taken.longest_gap():.1f}",
        f"{taken.resumed_after(ended):.1f}", ", ".join(map(str, sorted(taken.other))) or "none",
        "yes" if is_mended else "NO",
    ]  # fmt: skip


def main() -> int:
    """Make the faults; returns 1 where votes were lost or doubled, or something did not go on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), default=list(FAULTS), metavar="NAME")
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    rows: list[list[object]] = []
    for name in arguments.only:
        try:
            rows.append(measure(name, arguments.seconds))
            print("; ".join(map(str, rows[-1])), flush=True)
        except FaultUnavailableError as reason:
            print(f"left out: {name}: {reason}", flush=True)
    print(f"{machine()}; {ANNOTATORS} annotators, {arguments.seconds:.0f} s each, the fault in the middle third\n")
    header = (
        "fault", "acknowledged", "lost", "more on record", "refused, sent again", "unanswered", "longest gap, s",
        "first vote after the end, s", "other answers", "goes on by itself",
    )  # fmt: skip
    print_table(header, rows)
    return int(any(row[2] or row[3] or row[-1] == "NO" for row in rows))


if __name__ == "__main__":
    sys.exit(main())

"""Votes of many annotators at once: latency at a usual pace, votes a second at full speed, beside a flood of renders.

    python -m benchmarks.load [--annotators 400 1000] [--seconds 60] [--quick]

Each annotator is one connection that fetches an assignment and votes every 4 s on average. Saturated: 64 annotators who
vote as fast as they are answered. The flood: 1,000 render requests at once, asked again every 20 s, beside annotators.
Latency is measured by the client, from sending a request to having the answer, its own work included; the flood comes
from a process of its own.
Afterwards the server is killed, and every vote it acknowledged has to be in the database.
"""

import argparse
import asyncio
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.raw_http import Answer, Connection
from benchmarks.report import machine, percentile, print_table
from benchmarks.seeded_home import quiet_studio, rested, seed, votes_in
from tests.studio_process import StudioProcess

PAIRS = 600
BETWEEN = 4.0
"""Seconds between two votes of one annotator, on average."""
FLOOD = 1000


@dataclass
class Taken:
    """The responses of one run."""

    votes: list[float] = field(default_factory=list)
    assignments: list[float] = field(default_factory=list)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    acknowledged: set[int] = field(default_factory=set)
    seconds: float = 0.0
    server_seconds: float = 0.0
    """Processor time of the server."""

    def note(self, kind: str, answer: Answer, started: float) -> None:
        self.statuses[kind, answer.status] += 1
        if kind in ("votes", "assignments"):
            getattr(self, kind).append((time.perf_counter() - started) * 1000)
        if kind == "votes" and answer.status in (200, 201):
            self.acknowledged.add(answer.json()["vote"])


class Voter:
    """One annotator on a connection of their own."""

    def __init__(self, url: str, name: str, taken: Taken) -> None:
        self._connection = Connection(url)
        self._rng = random.Random(name)
        self._name = name
        self._taken = taken
        self._headers: dict[str, str] = {}

    async def enter(self) -> None:
        answer = await self._connection.request("POST", "/api/v1/session", body={"handle": self._name})
        self._headers = {"Authorization": f"Bearer {answer.json()['token']}"}

    async def vote(self, until: float, *, between: float, batch: int = 1) -> None:
        """Vote until then (time.monotonic), `batch` assignments a request, every `between` seconds on average."""
        await asyncio.sleep(self._rng.uniform(0, between))
        while time.monotonic() < until:
            listed = await self._timed("assignments", "GET", f"/api/v1/assignments?count={batch}")
            assignments = listed.json()["assignments"] if listed.status == 200 else []
            if listed.status == 200 and not assignments:
                raise RuntimeError(f"no pair is left for {self._name}; seed more")
            for assignment in assignments:
                choice, elapsed = self._rng.choice(["left", "right"]), self._rng.randrange(500, 4000)
                body = {"assignment": assignment["id"], "choice": choice, "elapsed_ms": elapsed}
                await self._timed("votes", "POST", "/api/v1/votes", body)
                if time.monotonic() >= until:
                    break
                await asyncio.sleep(self._rng.uniform(0.5, 1.5) * between)
        self._connection.close()

    async def _timed(self, kind: str, method: str, path: str, body: object = None) -> Answer:
        started = time.perf_counter()
        answer = await self._connection.request(method, path, body=body, headers=self._headers)
        self._taken.note(kind, answer, started)
        return answer


async def flood(url: str, until: float, taken: Taken) -> None:
    """1,000 people who all ask for an image at once, and each again some 20 s after an answer, mostly a refusal."""

    async def ask(index: int) -> None:
        connection, seeds = Connection(url), random.Random(index)
        while time.monotonic() < until:
            body = {"prompt": "a red boat on a beach", "seed": seeds.randrange(2**31), "versions": [0]}
            try:
                wanted = connection.request("POST", "/api/v1/render", body=body)
                answer = await asyncio.wait_for(wanted, max(0.01, until - time.monotonic()))
            except TimeoutError:  # still waiting for an image when the measuring ended
                break
            taken.note("renders", answer, time.perf_counter())
            await asyncio.sleep(seeds.uniform(15, 25))
        connection.close()

    await asyncio.gather(*(ask(index) for index in range(FLOOD)))


async def run(url: str, annotators: int, seconds: float, *, saturated: bool = False, flooded: bool = False) -> Taken:
    taken = Taken()
    voters = [Voter(url, f"{annotators} {saturated} {flooded} {index}", taken) for index in range(annotators)]
    for start in range(0, annotators, 50):
        await asyncio.gather(*(voter.enter() for voter in voters[start : start + 50]))
    started, until = time.monotonic(), time.monotonic() + seconds
    between, batch = (0.0, 50) if saturated else (BETWEEN, 1)
    work = [voter.vote(until, between=between, batch=batch) for voter in voters]
    if flooded:  # from a process of its own, so that votes are not measured behind the work of sending it
        context = multiprocessing.get_context("spawn")
        flooding = context.Process(target=flood_alone, args=(url, until - time.monotonic()))
        flooding.start()
        await asyncio.gather(*work)
        await asyncio.to_thread(flooding.join)
    else:
        await asyncio.gather(*work)
    taken.seconds = time.monotonic() - started
    return taken


def flood_alone(url: str, seconds: float) -> None:
    """The flood as a process; says what was answered."""
    taken = Taken()
    asyncio.run(flood(url, time.monotonic() + seconds, taken))
    answers = ", ".join(f"{count} x {status}" for (_, status), count in sorted(taken.statuses.items()))
    print(f"flood: {answers}", flush=True)


def row(name: str, taken: Taken, wanted: str) -> list[object]:
    figures = [f"{percentile(taken.votes, share):.1f}" for share in (0.5, 0.95, 0.99)]
    refused = sum(count for (kind, status), count in taken.statuses.items() if kind != "renders" and status == 503)
    faults = sum(count for (_, status), count in taken.statuses.items() if status >= 500 and status != 503)
    cpu = f"{1000 * taken.server_seconds / max(1, len(taken.acknowledged)):.1f}"
    per_second = f"{len(taken.acknowledged) / taken.seconds:.0f}"
    p99_assignments = f"{percentile(taken.assignments, 0.99):.1f}"
    slowest = f"{max(taken.votes):.0f}"
    return [name, len(taken.acknowledged), per_second, *figures, slowest, p99_assignments, cpu, refused, faults, wanted]


HEADER = (
    "run", "votes", "a second", "p50 ms", "p95 ms", "p99 ms", "max ms", "assignments p99 ms", "server CPU, ms a vote",
    "503", "other 5xx", "wanted",
)  # fmt: skip


def cpu_seconds(studio: StudioProcess) -> float:
    """Processor time of the server so far, in all its threads."""
    assert studio.process is not None
    times = psutil.Process(studio.process.pid).cpu_times()
    return float(times.user + times.system)


def measure(home: Path, annotators: list[int], seconds: float) -> tuple[list[list[object]], int, int]:
    """Rows, acknowledged votes, votes in the database after a kill."""
    acknowledged, rows = 0, []
    goals = {400: "p99 100", 1000: "p99 250"}
    runs: list[tuple[str, str, int, dict[str, bool]]] = [
        (f"{count} annotators", goals.get(count, ""), count, {}) for count in annotators
    ]
    runs.append(("saturated", "500 a second", 64, {"saturated": True}))
    runs.append((f"{annotators[0]} annotators, flood of renders", "p99 100, no 503", annotators[0], {"flooded": True}))
    with quiet_studio(seed(home, PAIRS, size=32)) as studio:
        rested(studio)
        for name, wanted, count, how in runs:
            # Saturated, an annotator would be through with all pairs; they need not go on for long.
            before = cpu_seconds(studio)
            taken = asyncio.run(run(studio.url, count, min(seconds, 20) if "saturated" in how else seconds, **how))
            taken.server_seconds = cpu_seconds(studio) - before
            acknowledged += len(taken.acknowledged)
            rows.append(row(name, taken, wanted))
        studio.kill()
    return rows, acknowledged, votes_in(home)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotators", type=int, nargs="+", default=[400, 1000])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--quick", action="store_true", help="100 annotators, 8 seconds")
    arguments = parser.parse_args()
    annotators, seconds = ([100], 8.0) if arguments.quick else (arguments.annotators, arguments.seconds)
    with tempfile.TemporaryDirectory() as folder:
        rows, acknowledged, found = measure(Path(folder) / "home", annotators, seconds)
    print(f"{machine()}; {seconds:.0f} s a run, {PAIRS} pairs\n")
    print_table(HEADER, rows)
    print(f"acknowledged: {acknowledged:,}; in the database after kill -9: {found:,}")


if __name__ == "__main__":
    main()

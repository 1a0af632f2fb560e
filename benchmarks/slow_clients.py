"""Votes beside clients that hold connections and give nothing: slow headers, slow bodies, idle ones, unknown sessions.

    python -m benchmarks.slow_clients [--connections 1000] [--annotators 50] [--seconds 30]

The attack comes from a process of its own. Each row: the latency of votes beside it, and how many of the attacker's
connections the server still held when the measuring ended.
"""

import argparse
import asyncio
import multiprocessing
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.load import Taken, run
from benchmarks.report import machine, percentile, print_table
from benchmarks.seeded_home import quiet_studio, rested, seed
from tests.studio_process import StudioProcess

PAIRS = 600
_HEAD = b"POST /api/v1/votes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_TRICKLE_SECONDS = 2.0
_Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter, float], Awaitable[None]]


async def _trickle(writer: asyncio.StreamWriter, start: bytes, piece: bytes, until: float) -> None:
    writer.write(start)
    while time.monotonic() < until and not writer.is_closing():
        await asyncio.sleep(min(_TRICKLE_SECONDS, max(0.0, until - time.monotonic())))
        writer.write(piece)
        await writer.drain()


async def slow_headers(_: asyncio.StreamReader, writer: asyncio.StreamWriter, until: float) -> None:
    """A header every two seconds, and never the last one."""
    await _trickle(writer, _HEAD, b"X-A: b\r\n", until)


async def slow_body(_: asyncio.StreamReader, writer: asyncio.StreamWriter, until: float) -> None:
    """A body of 60,000 bytes, a byte every two seconds."""
    await _trickle(writer, _HEAD + b"Content-Length: 60000\r\n\r\n", b" ", until)


async def idle(_: asyncio.StreamReader, __: asyncio.StreamWriter, until: float) -> None:
    """Connected, and silent."""
    await asyncio.sleep(until - time.monotonic())


async def unknown_session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, until: float) -> None:
    """The stream of a session that does not exist, asked for once a second, not all of them in the same instant."""
    await asyncio.sleep(random.random())
    while time.monotonic() < until:
        name = f"{id(writer):x}{time.monotonic_ns():x}"
        writer.write(f"GET /gradio_api/queue/data?session_hash={name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await writer.drain()
        if not await reader.read(65536):
            return
        await asyncio.sleep(1)


ATTACKS: dict[str, _Attack] = {
    "slow headers": slow_headers, "slow bodies": slow_body, "idle": idle, "unknown sessions": unknown_session,
}  # fmt: skip


def attack_alone(name: str, url: str, connections: int, seconds: float, held: Pipe) -> None:
    """The attack as a process; sends how many connections were open at its end, and how many it could not open."""

    async def one(until: float) -> tuple[bool, bool]:
        parts = urlsplit(url)
        try:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        except OSError:
            return False, True
        try:
            await asyncio.wait_for(ATTACKS[name](reader, writer, until), until - time.monotonic() + 1)
        except OSError:
            return False, False
        except TimeoutError:
            pass  # it waits for an answer: is it still held?
        return not await _is_closed(reader), False

    async def all_of_them() -> tuple[int, int]:
        until = time.monotonic() + seconds
        ends = await asyncio.gather(*(one(until) for _ in range(connections)))
        return sum(is_open for is_open, _ in ends), sum(is_refused for _, is_refused in ends)

    held.send(asyncio.run(all_of_them()))


async def _is_closed(reader: asyncio.StreamReader) -> bool:
    """True once the server closed the connection; what it said before is read away."""
    try:
        while await asyncio.wait_for(reader.read(65536), 0.05):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def beside(studio: StudioProcess, attack: str | None, connections: int, annotators: int, seconds: float) -> list[Any]:
    """One row: the votes beside an attack, or beside none."""
    context, held = multiprocessing.get_context("spawn"), (0, 0)
    ours, theirs = context.Pipe()
    process = None
    if attack is not None:
        process = context.Process(target=attack_alone, args=(attack, studio.url, connections, seconds + 4, theirs))
        process.start()
        theirs.close()
        time.sleep(3)
    taken: Taken = asyncio.run(run(studio.url, annotators, seconds))
    if process is not None:
        held = ours.recv()
        process.join()
    refused = sum(count for (_, status), count in taken.statuses.items() if status >= 500)
    latency = [f"{percentile(taken.votes, share):.1f}" for share in (0.5, 0.99)]
    return [attack or "none", len(taken.acknowledged), *latency, f"{max(taken.votes):.0f}", refused, *held]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--annotators", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, quiet_studio(seed(Path(folder) / "home", PAIRS, size=32)) as studio:
        rested(studio)
        for attack in (None, *ATTACKS):
            rows.append(beside(studio, attack, arguments.connections, arguments.annotators, arguments.seconds))
    print(f"{machine()}; {arguments.connections} connections, {arguments.annotators} annotators\n")
    header = ("beside", "votes", "p50 ms", "p99 ms", "max ms", "5xx", "connections held at the end", "turned away")
    print_table(header, rows)


if __name__ == "__main__":
    main()

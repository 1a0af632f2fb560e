"""A hostile client: forged, replayed, expired and foreign assignments, malformed bodies, and many sessions.

    python -m benchmarks.hostile [--attempts 10000] [--sessions 10000] [--quick]

Against a real server over HTTP. Nothing but the honest votes may be in the database afterwards, no answer may be of 500
or above, and the server's memory is read before and after the sessions, each of which fetches an assignment.
"""

import argparse
import asyncio
import json
import random
import secrets
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.raw_http import Answer, Connection
from benchmarks.report import machine, print_table
from benchmarks.seeded_home import quiet_studio, seed, votes_in
from tests.studio_process import StudioProcess

EXPIRY_MINUTES = 0.2
LANES = 16
"""Connections at a time."""
WRONG: list[Any] = [
    None, True, 0, -1, 1.5, 2**70, "", " ", "x" * 5000, "a\x00b", "\ud800", [], ["left"], {}, {"$ne": 1},
    "'; DROP TABLE votes; --", "../../etc/passwd", "\u202eleft", "NaN", [[[[[]]]]],
]  # fmt: skip
BODIES: dict[str, dict[str, Any]] = {
    "votes": {"assignment": "x", "choice": "left", "elapsed_ms": 5, "strength": "clearly", "comment": "hm"},
    "session": {"handle": "Ada", "invite": "x"},
    "render": {"prompt": "a cat", "seed": 1, "versions": [0], "strength": 1.0, "steps": 4, "guidance": 3.0},
    "reports": {"assignment": "x", "reason": "broken", "text": "hm"},
    "consent": {"sha256": "0" * 64},
}
RAW = [
    b"", b"null", b"[]", b"{", b"nul", b"NaN", b"\xff\xfe\x00", b"\x00", b"[" * 30_000, b'{"a":' * 5_000, b"<xml/>",
    b"assignment=x&choice=left", b'{"assignment":"x","choice":"left"} trailing', b'"' + b"x" * 200_000 + b'"',
    b'{"elapsed_ms":' + b"9" * 5000 + b"}", b'{"handle":"\\ud800"}', b"--boundary\r\n",
]  # fmt: skip


def malformed() -> Iterator[tuple[str, bytes]]:
    """(route, body) of every kind: each field missing or with each wrong value, and bodies that are no JSON object."""
    for route, good in BODIES.items():
        for raw in RAW:
            yield route, raw
        for name in good:
            yield route, json.dumps({key: value for key, value in good.items() if key != name}).encode()
            for value in WRONG:
                yield route, json.dumps({**good, name: value}).encode()


class Attacker:
    """Makes votes that must not be accepted, from what annotators of the same home can know of each other."""

    def __init__(self, url: str, rng: random.Random) -> None:
        self._url, self._rng = url, rng
        self._me = self._other = ""
        self._theirs: list[str] = []
        self._answered: list[tuple[str, str]] = []
        self._expired: list[str] = []
        self._late = ""
        self.honest = 0
        """Votes that were rightly accepted."""

    async def prepare(self) -> None:
        """Two annotators with open assignments; some answered by their owner, some left until they have expired."""
        connection = Connection(self._url)
        self._me, self._other = await open_session(connection, "mallory"), await open_session(connection, "bob")
        self._late = await open_session(connection, "late")
        self._expired = [item["id"] for item in await assignments(connection, self._late)]
        for item in await assignments(connection, self._me):
            await self._vote(connection, self._me, item["id"], "left")
            self._answered.append((item["id"], "left"))
        self.honest = len(self._answered)
        await asyncio.sleep(EXPIRY_MINUTES * 60 + 1)
        self._theirs = [item["id"] for item in await assignments(connection, self._other)]
        connection.close()

    async def attempt(self, connection: Connection, number: int) -> tuple[str, Answer]:
        """The kind of the n-th attempt and its answer."""
        kind = ("forged", "changed", "foreign", "replayed", "expired", "forged session")[number % 6]
        token, choice = self._me, self._rng.choice(["left", "right", "tie", "skip"])
        if kind == "forged":
            assignment = secrets.token_urlsafe(self._rng.randrange(1, 40))
        elif kind == "changed":
            known = self._rng.choice(self._theirs)
            place = self._rng.randrange(len(known))
            assignment = known[:place] + self._rng.choice("abcXYZ019_-") + known[place + 1 :]
        elif kind == "foreign":
            assignment = self._rng.choice(self._theirs)
        elif kind == "replayed":
            assignment, choice = self._rng.choice(self._answered)[0], self._rng.choice(["right", "tie", "skip"])
        elif kind == "expired":
            assignment, token = self._rng.choice(self._expired), self._late
        else:
            assignment, token = self._rng.choice(self._theirs), self._spoilt(self._other)
        return kind, await self._vote(connection, token, assignment, choice)

    def _spoilt(self, token: str) -> str:
        place = self._rng.randrange(len(token))
        return token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]

    async def _vote(self, connection: Connection, token: str, assignment: str, choice: str) -> Answer:
        body = {"assignment": assignment, "choice": choice, "elapsed_ms": 900}
        return await connection.request("POST", "/api/v1/votes", body=body, headers=bearer(token))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def open_session(connection: Connection, handle: str) -> str:
    answer = await connection.request("POST", "/api/v1/session", body={"handle": handle})
    return str(answer.json()["token"])


async def assignments(connection: Connection, token: str, count: int = 16) -> list[dict[str, Any]]:
    answer = await connection.request("GET", f"/api/v1/assignments?count={count}", headers=bearer(token))
    found: list[dict[str, Any]] = answer.json()["assignments"]
    return found


async def in_lanes(url: str, work: Sequence[Any], do: Callable[[Connection, Any], Awaitable[Any]]) -> list[Any]:
    """`do` for every item, on LANES connections."""
    items, results = iter(work), []

    async def lane() -> None:
        connection = Connection(url)
        for item in items:
            results.append(await do(connection, item))
        connection.close()

    await asyncio.gather(*(lane() for _ in range(LANES)))
    return results


async def attack(url: str, count: int) -> tuple[list[list[object]], int]:
    """A row a kind of forged vote, and how many votes are right to be there."""
    attacker = Attacker(url, random.Random(1))
    await attacker.prepare()
    answers = await in_lanes(url, range(count), attacker.attempt)
    tried = Counter(kind for kind, _ in answers)
    accepted = Counter(kind for kind, answer in answers if answer.status < 400)
    faults = Counter(kind for kind, answer in answers if answer.status >= 500)
    statuses = {kind: sorted({answer.status for other, answer in answers if other == kind}) for kind in tried}
    rows: list[list[object]] = [
        [kind, tried[kind], accepted[kind], faults[kind], ", ".join(map(str, statuses[kind]))] for kind in tried
    ]
    return rows, attacker.honest


async def malform(url: str) -> tuple[list[list[object]], dict[str, int]]:
    """A row a route: bodies, faults, statuses; and the bodies that were answered by 500 or above."""
    token = await open_session(Connection(url), "mallory")
    statuses: dict[str, Counter[int]] = {}
    faults: dict[str, int] = {}

    async def send(connection: Connection, item: tuple[str, bytes]) -> None:
        route, body = item
        answer = await connection.request("POST", f"/api/v1/{route}", body=body, headers=bearer(token))
        statuses.setdefault(route, Counter())[answer.status] += 1
        if answer.status >= 500 and answer.status != 503:
            faults[f"{route} {body[:80]!r}"] = answer.status

    await in_lanes(url, list(malformed()), send)
    rows: list[list[object]] = []
    for route, of_route in statuses.items():
        wrong = sum(count for status, count in of_route.items() if status >= 500 and status != 503)
        rows.append([f"malformed: {route}", of_route.total(), "", wrong, ", ".join(map(str, sorted(of_route)))])
    return rows, faults


async def many_sessions(url: str, count: int) -> None:
    async def enter(connection: Connection, number: int) -> None:
        token = await open_session(connection, f"visitor {number}")
        await assignments(connection, token, 1)

    await in_lanes(url, range(count), enter)


def resident_mb(studio: StudioProcess) -> float:
    assert studio.process is not None
    return float(psutil.Process(studio.process.pid).memory_info().rss / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="600 attempts, 300 sessions")
    arguments = parser.parse_args()
    attempts, sessions = (600, 300) if arguments.quick else (arguments.attempts, arguments.sessions)
    with tempfile.TemporaryDirectory() as folder:
        home = seed(Path(folder) / "home", 100, size=32)
        with quiet_studio(home, POOL__ASSIGNMENT_MINUTES=EXPIRY_MINUTES) as studio:
            with studio.client() as client:  # the model is loaded before memory is looked at
                client.post("/api/v1/render", json={"prompt": "a cat", "seed": 1, "versions": [0]}).raise_for_status()
            rows, honest = asyncio.run(attack(studio.url, attempts))
            more, faults = asyncio.run(malform(studio.url))
            asyncio.run(many_sessions(studio.url, 100))
            before = resident_mb(studio)
            asyncio.run(many_sessions(studio.url, sessions))
            after = resident_mb(studio)
        found = votes_in(home)
    print(f"{machine()}\n")
    print_table(("kind", "requests", "accepted", "5xx", "answers"), rows + more)
    print(f"votes in the database: {found}, of them honest: {honest}")
    for body, status in faults.items():
        print(f"{status}: {body}")
    print(
        f"{sessions:,} sessions: {before:.0f} MB before, {after:.0f} MB after: {after - before:+.0f} MB (wanted: 150)"
    )


if __name__ == "__main__":
    main()

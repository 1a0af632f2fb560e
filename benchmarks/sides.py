"""Which image stands left, over many showings, and whether what a browser receives tells how an image was made.

    python -m benchmarks.sides [--showings 10000] [--quick]

Annotators fetch pairs and skip them, through the API of a real server; which image stood left is then read from its
database. On the way, every kind of answer that a voting browser gets (page, assignments, images) is scanned: names of
fields and headers, metadata in the PNG files, and words that name a version, a seed or a file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from scipy.stats import binomtest
from sqlalchemy import text

from benchmarks.hostile import assignments, bearer, in_lanes, open_session
from benchmarks.raw_http import Connection
from benchmarks.report import machine, print_table
from benchmarks.seeded_home import quiet_studio, seed
from dmpo_app.store import Store

PAIRS = 200
FIELDS = {"id", "prompt", "left", "right", "question", "asks", "expires_at"}
"""What a browser has to know of a showing, and no more."""
CHUNKS = {"IHDR", "PLTE", "IDAT", "IEND"}
HEADERS = {
    "date", "server", "content-length", "content-type", "cache-control", "x-content-type-options", "referrer-policy",
    "cross-origin-resource-policy", "x-frame-options", "content-security-policy", "vary", "content-encoding",
}  # fmt: skip
TELLING = re.compile(r"adapter|version|seed|sha256|lora|\.png|\.safetensors|[0-9a-f]{64}", re.IGNORECASE)


async def show_all(url: str, showings: int) -> None:
    """Showings to annotators who each see every pair."""

    async def see(connection: Connection, number: int) -> None:
        token, left = await open_session(connection, f"viewer {number}"), min(PAIRS, showings - number * PAIRS)
        while left > 0 and (found := await assignments(connection, token, min(16, left))):
            for item in found:
                body = {"assignment": item["id"], "choice": "skip", "elapsed_ms": 500}
                answer = await connection.request("POST", "/api/v1/votes", body=body, headers=bearer(token))
                left -= answer.status == 201

    await in_lanes(url, range(math.ceil(showings / PAIRS)), see)


def sides_of(home: Path) -> Counter[bool]:
    """How often image a stood left, of every showing that was issued."""
    with Store.open(home) as store, store._database.reader() as connection:
        rows = connection.execute(text("SELECT a_on_left, count(*) FROM assignments GROUP BY a_on_left")).all()
    return Counter({bool(side): count for side, count in rows})


def chunks_of(png: bytes) -> Iterator[str]:
    """The types of a PNG file's chunks."""
    place = 8
    while place < len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        yield kind.decode("latin-1")
        place += length + 12


def scan(client: httpx.Client, annotators: int) -> tuple[dict[str, int], list[str]]:
    """(what was looked at by kind, what was found that should not be there) for some annotators' first pairs."""
    seen: Counter[str] = Counter()
    hints: list[str] = []
    addresses: Counter[str] = Counter()
    for number in range(annotators):
        token = client.post("/api/v1/session", json={"handle": f"scanner {number}"}).json()["token"]
        answer = client.get("/api/v1/assignments?count=16", headers=bearer(token))
        hints += _in_headers("assignments", answer, seen)
        for item in answer.json()["assignments"]:
            seen["showings"] += 1
            hints += [f"field {name!r} of an assignment" for name in item.keys() - FIELDS]
            hints += [f"{name}: {found}" for name, found in _telling(item)]
            for side in ("left", "right"):
                addresses[item[side]] += 1
                hints += _in_image(client.get(item[side]), seen)
    seen["addresses of images"] = len(addresses)
    hints += [f"one address for two showings: {address}" for address, count in addresses.items() if count > 1]
    return dict(seen), hints


def _telling(item: dict[str, Any]) -> Iterator[tuple[str, str]]:
    without_prompt = {**item, "prompt": ""}
    for name, value in without_prompt.items():
        # Addresses are sealed tokens, random letters: of these only what is not one is looked at.
        shown = re.sub(r"[\w-]{60,}", "", json.dumps(value)) if name in ("left", "right") else json.dumps(value)
        if found := TELLING.search(shown):
            yield name, found[0]


def _in_image(answer: httpx.Response, seen: Counter[str]) -> list[str]:
    seen["images"] += 1
    odd = set(chunks_of(answer.content)) - CHUNKS
    return [f"PNG chunk {name}" for name in sorted(odd)] + _in_headers("image", answer, seen)


def _in_headers(what: str, answer: httpx.Response, seen: Counter[str]) -> list[str]:
    seen["headers"] += len(answer.headers)
    return [f"header {name} of {what}" for name in sorted(answer.headers.keys() - HEADERS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--showings", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="600 showings")
    arguments = parser.parse_args()
    showings = 600 if arguments.quick else arguments.showings
    with tempfile.TemporaryDirectory() as folder:
        home = seed(Path(folder) / "home", PAIRS, size=64)
        with quiet_studio(home) as studio:
            with studio.client() as client:
                seen, hints = scan(client, 10)
            asyncio.run(show_all(studio.url, showings))
        sides = sides_of(home)
    left, total = sides[True], sides.total()
    found = binomtest(left, total).proportion_ci()
    print(f"{machine()}\n")
    row = [f"{total:,}", f"{left / total:.2%}", f"{found.low:.2%} to {found.high:.2%}", "48.5 to 51.5 %"]
    print_table(("showings", "image a left", "95 %", "wanted"), [row])
    print_table(("scanned", "count"), sorted(seen.items()))
    print(f"hints found: {len(hints)}")
    for hint, count in Counter(hints).most_common(20):
        print(f"{count} x {hint}")


if __name__ == "__main__":
    main()

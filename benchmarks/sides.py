"""Blindness of the vote: the side of each image over many assignments, and traces of its making in what a browser gets.

    python -m benchmarks.sides [--assignments 10000] [--quick]

Annotators fetch pairs and skip them, through the API of a real server; which image stood left is then read from its
database. On the way, everything that a voting browser gets is scanned: names of fields and headers, metadata in the PNG
files, words that name a version, a seed or a file, and whatever else speaks of an assignment. Assignments of different
versions are compared in all but their images, down to the length of an address.
"""

import argparse
import asyncio
import json
import math
import re
import struct
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from playwright.sync_api import Response, sync_playwright
from scipy.stats import binomtest

from benchmarks.hostile import assignments, bearer, in_lanes, open_session
from benchmarks.raw_http import Connection
from benchmarks.report import machine, print_table
from benchmarks.seeded_home import quiet_studio, seed
from dmpo_app.store import Store
from tests.browser.conftest import ARGUMENTS, chromium_path
from tests.browser.page_studio import READY, open_label
from tests.patience import PATIENCE

PAIRS = 200
NEWEST = 12
"""Pairs of the versions up to this one take turns."""
FIELDS = {"id", "prompt", "left", "right", "more", "question", "asks", "expires_at"}
"""What a browser has to know of an assignment, and no more."""
CHUNKS = {"IHDR", "PLTE", "IDAT", "IEND"}
HEADERS = {
    "date", "server", "content-length", "content-type", "cache-control", "x-content-type-options", "referrer-policy",
    "cross-origin-resource-policy", "x-frame-options", "content-security-policy", "vary", "content-encoding",
}  # fmt: skip
TELLING = re.compile(r"adapter|version|seed|sha256|lora|\.png|\.safetensors|[0-9a-f]{64}", re.IGNORECASE)


async def show_all(url: str, num_assignments: int) -> None:
    """Assignments to annotators who each see every pair."""

    async def see(connection: Connection, number: int) -> None:
        token, left = await open_session(connection, f"viewer {number}"), min(PAIRS, num_assignments - number * PAIRS)
        while left > 0 and (found := await assignments(connection, token, min(16, left))):
            for item in found:
                body = {"assignment": item["id"], "choice": "skip", "elapsed_ms": 500}
                answer = await connection.request("POST", "/api/v1/votes", body=body, headers=bearer(token))
                left -= answer.status == 201

    await in_lanes(url, range(math.ceil(num_assignments / PAIRS)), see)


def sides_of(home: Path) -> Counter[bool]:
    """Count how often image a stood left, of all assignments that were issued."""
    with Store.open(home) as store:
        rows = store.read("SELECT a_on_left, count(*) FROM assignments GROUP BY a_on_left")
    return Counter({bool(side): count for side, count in rows})


def chunks_of(png: bytes) -> Iterator[str]:
    """The types of a PNG file's chunks."""
    place = 8
    while place < len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        yield kind.decode("latin-1")
        place += length + 12


@dataclass
class Scan:
    """A scan of everything a browser received for what should not be there."""

    seen: Counter[str] = field(default_factory=Counter)
    hints: list[str] = field(default_factory=list)
    addresses: Counter[str] = field(default_factory=Counter)
    shapes: dict[str, set[str]] = field(default_factory=dict)
    """By the id of an assignment: how it and its images look, the pixels left out."""

    def assignment(self, item: dict[str, Any]) -> None:
        """An assignment as the API tells it."""
        self.seen["assignments"] += 1
        self.hints += [f"field {name!r} of an assignment" for name in item.keys() - FIELDS]
        self.hints += [f"{name}: {found}" for name, found in _telling(item)]
        addresses = (item["left"], item["right"])
        self.addresses.update(addresses)
        self.shapes[item["id"]] = {f"fields {sorted(item)}, lengths {[len(part) for part in (item['id'], *addresses)]}"}

    def image(self, of: str, png: bytes, headers: Iterable[str]) -> None:
        """An image of an assignment."""
        self.seen["images"] += 1
        chunks, first = set(chunks_of(png)), png[8:33].hex()  # IHDR: size, depth, colours
        self.hints += [f"PNG chunk {name}" for name in sorted(chunks - CHUNKS)]
        self.shapes[of].add(f"chunks {sorted(chunks)}, header {first}, HTTP headers {sorted(headers)}")

    def headers(self, what: str, names: Iterable[str]) -> None:
        """The names of an answer's headers."""
        self.seen["headers"] += len(list(names))
        self.hints += [f"header {name} of {what}" for name in sorted(set(names) - HEADERS)]

    def compare(self, version_of: dict[str, int]) -> None:
        """Assignments of one version have to look like those of any other."""
        by_version: dict[int, set[str]] = defaultdict(set)
        for assignment, shapes in self.shapes.items():
            by_version[version_of[assignment]] |= shapes
        self.seen["versions compared"] = len(by_version)
        everywhere, anywhere = set.intersection(*by_version.values()), set.union(*by_version.values())
        self.hints += [f"only some versions look like this: {shape}" for shape in anywhere - everywhere]
        self.hints += [f"one address for two assignments: {url}" for url, count in self.addresses.items() if count > 1]


def scan_api(client: httpx.Client, annotators: int, scan: Scan) -> None:
    """Scan the API's responses to the first requests of some annotators."""
    for number in range(annotators):
        token = client.post("/api/v1/session", json={"handle": f"scanner {number}"}).json()["token"]
        answer = client.get("/api/v1/assignments?count=16", headers=bearer(token))
        scan.headers("assignments", answer.headers)
        for item in answer.json()["assignments"]:
            scan.assignment(item)
            for side in ("left", "right"):
                image = client.get(item[side])
                scan.headers("image", image.headers)
                scan.image(item["id"], image.content, image.headers)


def scan_page(url: str, presses: int, scan: Scan) -> None:
    """Everything a browser receives while a person votes: no answer but those looked at may speak of an image."""
    received: list[Response] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=ARGUMENTS)
        page = browser.new_page()
        page.on("response", lambda answer: received.append(answer))
        page.set_default_timeout(1000 * PATIENCE)
        open_label(page, url)
        for number in range(presses):
            page.keyboard.press("12"[number % 2])
            page.wait_for_selector(READY)
        page.wait_for_timeout(2000)  # what was asked for has come
        shown = [item for answer in received if "/assignments" in answer.url for item in answer.json()["assignments"]]
        ids = {item["id"] for item in shown}
        for answer in received:
            path = urlsplit(answer.url).path
            scan.seen["answers to the browser"] += 1
            if "/images/" in path or "/assignments" in path:
                scan.headers(path.split("/")[3], set(answer.headers))
            elif path == "/api/v1/votes":
                scan.hints += [f"a vote's answer: {found}" for _, found in _telling(answer.json())]
            elif answer.status == 200 and _is_text(answer) and any(one in answer.text() for one in ids):
                scan.hints.append(f"{path} speaks of an assignment")
        browser.close()
    for item in {item["id"]: item for item in shown}.values():
        scan.hints += [f"{name}: {found}" for name, found in _telling(item)]


def _is_text(answer: Response) -> bool:
    """Not an image or a font, nor a stream that does not end."""
    kind = answer.headers.get("content-type", "")
    return any(word in kind for word in ("json", "html", "javascript", "css", "text/plain"))


def _telling(item: dict[str, Any]) -> Iterator[tuple[str, str]]:
    without_prompt = {**item, "prompt": ""}
    for name, value in without_prompt.items():
        # Addresses are sealed tokens, random letters: of these only what is not one is looked at.
        shown = re.sub(r"[\w-]{60,}", "", json.dumps(value)) if name in ("left", "right") else json.dumps(value)
        if found := TELLING.search(shown):
            yield name, found[0]


def versions_of(home: Path) -> dict[str, int]:
    """The version that made the images of every assignment, by the assignment's id."""
    query = "SELECT a.public_id, p.adapter_version FROM assignments a JOIN pairs p ON p.id = a.pair_id"
    with Store.open(home) as store:
        return {row.public_id: row.adapter_version for row in store.read(query)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assignments", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="600 assignments")
    arguments = parser.parse_args()
    num_assignments = 600 if arguments.quick else arguments.assignments
    with tempfile.TemporaryDirectory() as folder:
        home = seed(Path(folder) / "home", PAIRS, size=64, newest=NEWEST)
        scan = Scan()
        with quiet_studio(home) as studio:
            with studio.client() as client:
                scan_api(client, 10, scan)
            scan_page(studio.url, 40, scan)
            asyncio.run(show_all(studio.url, num_assignments))
        sides = sides_of(home)
        scan.compare(versions_of(home))
    left, total = sides[True], sides.total()
    found = binomtest(left, total).proportion_ci()
    print(f"{machine()}\n")
    row = [f"{total:,}", f"{left / total:.2%}", f"{found.low:.2%} to {found.high:.2%}", "48.5 to 51.5 %"]
    print_table(("assignments", "image a left", "95 %", "wanted"), [row])
    print_table(("scanned", "count"), sorted(scan.seen.items()))
    print(f"hints found: {len(scan.hints)}")
    for hint, count in Counter(scan.hints).most_common(20):
        print(f"{count} x {hint}")


if __name__ == "__main__":
    main()

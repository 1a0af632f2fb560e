"""What changed between two copies of a database, page by page.

Pages cannot miss a table, a column or a kind of change. A delta names the sha256 of the copy it starts from and of the
one it leads to, so a chain of them proves itself.

File: gzip of one line of JSON (`DeltaHead`), then the pages in the order of `runs`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dmpo_app.errors import BackupDamaged
from dmpo_app.store.files import sha256_of_file

FORMAT = 1
_CHUNK = 1 << 23
_LEVEL = 1
"""gzip's quickest: what takes long here keeps votes from being safe."""
_MAX_HEAD = 64 << 20


@dataclass(frozen=True, slots=True)
class DeltaHead:
    """`runs`: (first page, number of pages), counted from 0. `before`, `after`: sha256 of the copies."""

    page_bytes: int
    num_pages: int
    runs: list[tuple[int, int]]
    before: str
    after: str
    format: int = FORMAT

    @property
    def num_changed(self) -> int:
        return sum(length for _, length in self.runs)


def compress(source: Path, target: Path) -> None:
    """Write `source` to `target` as gzip."""
    with source.open("rb") as plain, _gzip_writer(target) as packed:
        while chunk := plain.read(_CHUNK):
            packed.write(chunk)


def decompress(source: Path, target: Path) -> str:
    """Write what `source` packs to `target`; returns the content's sha256. Raises BackupDamaged."""
    digest = hashlib.sha256()
    try:
        with gzip.open(source, "rb") as packed, target.open("wb") as plain:
            while chunk := packed.read(_CHUNK):
                digest.update(chunk)
                plain.write(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise BackupDamaged(f"{source.name} is no whole gzip file: {error}") from error
    return digest.hexdigest()


def compare(before: Path, before_sha256: str, after: Path) -> DeltaHead:
    """What it takes to get from one copy to the other."""
    page_bytes = _page_bytes(after)
    changed: list[int] = []
    with before.open("rb") as old, after.open("rb") as new:
        first = 0
        while chunk := new.read(_CHUNK):
            changed += [first + page for page in _different(old.read(_CHUNK), chunk, page_bytes)]
            first += len(chunk) // page_bytes
    return DeltaHead(page_bytes, first, _runs(changed), before_sha256, sha256_of_file(after))


def write_delta(head: DeltaHead, after: Path, target: Path) -> None:
    """Write the delta of `compare`; `after` is the copy it leads to."""
    with _gzip_writer(target) as packed, after.open("rb") as pages:
        packed.write(json.dumps(asdict(head)).encode() + b"\n")
        for first, length in head.runs:
            pages.seek(first * head.page_bytes)
            for piece in _pieces(pages, length * head.page_bytes):
                packed.write(piece)


def apply_delta(delta: Path, database: Path, sha256: str, *, checked: bool = True) -> str:
    """Bring a copy, whose sha256 is given, one delta further; returns the new sha256.

    Unless `checked`, the caller compares the copy with it: after many deltas once. Raises BackupDamaged, and then the
    copy may be neither the one nor the other.
    """
    try:
        with gzip.open(delta, "rb") as packed, database.open("r+b") as pages:
            head = _read_head(packed.readline(_MAX_HEAD))
            if head.before != sha256:
                raise BackupDamaged(f"{delta.name} continues another copy ({head.before[:12]}, this is {sha256[:12]})")
            for first, length in head.runs:
                pages.seek(first * head.page_bytes)
                for piece in _pieces(packed, length * head.page_bytes):
                    pages.write(piece)
            pages.truncate(head.num_pages * head.page_bytes)
    except (OSError, EOFError, zlib.error) as error:
        raise BackupDamaged(f"{delta.name} is no whole delta: {error}") from error
    if checked and (found := sha256_of_file(database)) != head.after:
        raise BackupDamaged(f"{delta.name} leads to {found[:12]}, not to {head.after[:12]} as it says")
    return head.after


def _read_head(line: bytes) -> DeltaHead:
    try:
        fields = json.loads(line)
        head = DeltaHead(**{**fields, "runs": [(int(first), int(length)) for first, length in fields["runs"]]})
    except (ValueError, TypeError, KeyError) as error:
        raise BackupDamaged(f"this is no delta of a database: {error}") from error
    if head.format != FORMAT or head.page_bytes not in (1 << power for power in range(9, 17)):
        raise BackupDamaged(f"a delta of format {head.format} with pages of {head.page_bytes} bytes is not known here")
    if any(first < 0 or length < 1 or first + length > head.num_pages for first, length in head.runs):
        raise BackupDamaged("a delta names pages that its database does not have")
    return head


def _pieces(file: BinaryIO | gzip.GzipFile, num_bytes: int) -> Iterator[bytes]:
    while num_bytes > 0:
        piece = file.read(min(_CHUNK, num_bytes))
        if not piece:
            raise EOFError("it ends too early")
        num_bytes -= len(piece)
        yield piece


def _different(old: bytes, new: bytes, page_bytes: int) -> list[int]:
    """Which pages of `new` are not those of `old`; numpy compares without holding up other threads."""
    common = min(len(old), len(new)) // page_bytes
    shape = (common, page_bytes // 8)
    a, b = (np.frombuffer(side, np.uint64, common * page_bytes // 8).reshape(shape) for side in (old, new))
    changed: list[int] = np.flatnonzero((a != b).any(axis=1)).tolist()
    return changed + list(range(common, len(new) // page_bytes))


def _runs(pages: list[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for page in pages:
        if runs and sum(runs[-1]) == page:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((page, 1))
    return runs


def _page_bytes(database: Path) -> int:
    """From the header of SQLite's file format: two bytes at offset 16, in which 1 stands for 65536."""
    with database.open("rb") as file:
        stored = int.from_bytes(file.read(18)[16:18], "big")
    return 65536 if stored == 1 else stored


def _gzip_writer(target: Path) -> gzip.GzipFile:
    target.parent.mkdir(parents=True, exist_ok=True)
    return gzip.GzipFile(os.fspath(target), "wb", compresslevel=_LEVEL, mtime=0)

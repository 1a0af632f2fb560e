"""Page delta between two copies of a SQLite database.

Pages cannot miss a table, a column or a kind of change. A delta names the sha256 of the copy it starts from and of the
one it leads to, so a chain of them proves itself.

File: gzip of one line of JSON (`DeltaHeader`), then the pages in the order of `runs`.
"""

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

from dmpo_app.errors import BackupDamagedError
from dmpo_app.io import sha256_of_file

FORMAT = 1
_CHUNK = 1 << 23
_LEVEL = 1
"""gzip's quickest: what takes long here keeps votes from being safe."""
_MAX_HEAD = 64 << 20


@dataclass(frozen=True, slots=True)
class DeltaHeader:
    """Header of a delta. `runs`: (first page, number of pages), from 0. `before`, `after`: sha256 of the copies."""

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
    with source.open("rb") as plain, _gzip_writer(target) as gzip_file:
        while chunk := plain.read(_CHUNK):
            gzip_file.write(chunk)


def decompress(source: Path, target: Path) -> str:
    """Write the content of the gzip file `source` to `target`; returns its sha256. Raises BackupDamagedError."""
    digest = hashlib.sha256()
    try:
        with gzip.open(source, "rb") as gzip_file, target.open("wb") as plain:
            while chunk := gzip_file.read(_CHUNK):
                digest.update(chunk)
                plain.write(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise BackupDamagedError(f"{source.name} is no whole gzip file: {error}") from error
    return digest.hexdigest()


def compare(before: Path, before_sha256: str, after: Path) -> DeltaHeader:
    """Compare two copies of a database: the header of the delta from one to the other."""
    page_bytes = _page_bytes(after)
    changed_pages: list[int] = []
    with before.open("rb") as old, after.open("rb") as new:
        first = 0
        while chunk := new.read(_CHUNK):
            changed_pages += [first + page for page in _different(old.read(_CHUNK), chunk, page_bytes)]
            first += len(chunk) // page_bytes
    return DeltaHeader(page_bytes, first, _runs(changed_pages), before_sha256, sha256_of_file(after))


def write_delta(head: DeltaHeader, after: Path, target: Path) -> None:
    """Write the delta with this header; `after` is the copy it leads to."""
    with _gzip_writer(target) as packed, after.open("rb") as pages:
        packed.write(json.dumps(asdict(head)).encode() + b"\n")
        for first, length in head.runs:
            pages.seek(first * head.page_bytes)
            for piece in _pieces(pages, length * head.page_bytes):
                packed.write(piece)


def apply_delta(delta: Path, database: Path, sha256: str, *, check_hash: bool = True) -> str:
    """Apply one delta to a copy with this sha256; returns the new sha256.

    Without `check_hash`, the caller compares the copy with it: after many deltas once. Raises BackupDamagedError, and
    then the copy may be neither the one nor the other.
    """
    try:
        with gzip.open(delta, "rb") as packed, database.open("r+b") as pages:
            head = _parse_header(packed.readline(_MAX_HEAD))
            if head.before != sha256:
                raise BackupDamagedError(
                    f"{delta.name} continues another copy ({head.before[:12]}, this is {sha256[:12]})"
                )
            for first, length in head.runs:
                pages.seek(first * head.page_bytes)
                for piece in _pieces(packed, length * head.page_bytes):
                    pages.write(piece)
            pages.truncate(head.num_pages * head.page_bytes)
    except (OSError, EOFError, zlib.error) as error:
        raise BackupDamagedError(f"{delta.name} is no whole delta: {error}") from error
    if check_hash and (actual_sha256 := sha256_of_file(database)) != head.after:
        raise BackupDamagedError(f"{delta.name} leads to {actual_sha256[:12]}, not to {head.after[:12]} as it says")
    return head.after


def _parse_header(line: bytes) -> DeltaHeader:
    try:
        fields = json.loads(line)
        head = DeltaHeader(**{**fields, "runs": [(int(first), int(length)) for first, length in fields["runs"]]})
    except (ValueError, TypeError, KeyError) as error:
        raise BackupDamagedError(f"this is no delta of a database: {error}") from error
    if head.format != FORMAT or head.page_bytes not in (1 << power for power in range(9, 17)):
        raise BackupDamagedError(
            f"a delta of format {head.format} with pages of {head.page_bytes} bytes is not known here"
        )
    if any(first < 0 or length < 1 or first + length > head.num_pages for first, length in head.runs):
        raise BackupDamagedError("a delta names pages that its database does not have")
    return head


def _pieces(file: BinaryIO | gzip.GzipFile, num_bytes: int) -> Iterator[bytes]:
    while num_bytes > 0:
        piece = file.read(min(_CHUNK, num_bytes))
        if not piece:
            raise EOFError("it ends too early")
        num_bytes -= len(piece)
        yield piece


def _different(old: bytes, new: bytes, page_bytes: int) -> list[int]:
    """Pages of `new` that differ from those of `old`; numpy compares without holding up other threads."""
    common = min(len(old), len(new)) // page_bytes
    shape = (common, page_bytes // 8)
    a, b = (np.frombuffer(side, np.uint64, common * page_bytes // 8).reshape(shape) for side in (old, new))
    changed_pages: list[int] = np.flatnonzero((a != b).any(axis=1)).tolist()
    return changed_pages + list(range(common, len(new) // page_bytes))


def _runs(pages: list[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for page in pages:
        if runs and sum(runs[-1]) == page:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((page, 1))
    return runs


def _page_bytes(database: Path) -> int:
    """Page size from the header of SQLite's file format: two bytes at offset 16, in which 1 stands for 65536."""
    with database.open("rb") as file:
        page_size = int.from_bytes(file.read(18)[16:18], "big")
    return 65536 if page_size == 1 else page_size


def _gzip_writer(target: Path) -> gzip.GzipFile:
    target.parent.mkdir(parents=True, exist_ok=True)
    return gzip.GzipFile(os.fspath(target), "wb", compresslevel=_LEVEL, mtime=0)

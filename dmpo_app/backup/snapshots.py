"""Snapshots of a database in a backup, each with a log of page deltas between two copies of the SQLite file.

Pages cannot miss a table, a column or a kind of change. A delta names the sha256 of the copy it starts from and of the
one it leads to, so a chain of them proves itself.

A delta's file: gzip of one line of JSON (`DeltaHeader`), then the pages in the order of `runs`.
"""

import gzip
import hashlib
import json
import logging
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dmpo_app.backup.remotes.remote import Remote
from dmpo_app.errors import BackupDamagedError, NotFoundError
from dmpo_app.io.files import sha256_of_file

_log = logging.getLogger(__name__)

FORMAT = 1
_PREFIX = "snapshots/"
_MANIFEST = "manifest.json"
_NAME = re.compile(r"\d{8}-\d{6}-\d{8}T\d{6}Z")
_TIME = "%Y%m%dT%H%M%SZ"
_DELTAS_PER_FETCH = 32
_CHUNK = 1 << 23
_LEVEL = 1
"""gzip's quickest: what takes long here keeps votes from being safe."""
_MAX_HEAD = 64 << 20


@dataclass(frozen=True, slots=True)
class SnapshotManifest:
    """Snapshot manifest. `sha256`, `num_bytes`: of the database; `packed_...`: of database.gz. `schema`: revision."""

    name: str
    created_at: str
    schema: str
    votes: int
    sha256: str
    num_bytes: int
    packed_sha256: str
    packed_bytes: int
    format: int = FORMAT


def snapshot_name(generation: int, number: int, at: datetime) -> str:
    """The name of a snapshot; names sort by claim, then by number."""
    return f"{generation:08d}-{number:06d}-{at.astimezone(UTC).strftime(_TIME)}"


def snapshot_names(remote: Remote) -> list[str]:
    """List the snapshots that have a manifest, oldest first. Raises BackupUnreachableError."""
    parts = (name.split("/") for name in remote.names(_PREFIX))
    return sorted(part[1] for part in parts if len(part) == 3 and part[2] == _MANIFEST and _NAME.fullmatch(part[1]))


def put_snapshot(
    remote: Remote, name: str, database: Path, packed: Path, *, schema: str, votes: int
) -> SnapshotManifest:
    """Store a copy of a database as a snapshot; `packed` is where it may be compressed to.

    Raises BackupUnreachableError.
    """
    compress(database, packed)
    manifest = SnapshotManifest(
        name=name,
        created_at=datetime.strptime(name[-16:], _TIME).replace(tzinfo=UTC).isoformat(),
        schema=schema,
        votes=votes,
        sha256=sha256_of_file(database),
        num_bytes=database.stat().st_size,
        packed_sha256=sha256_of_file(packed),
        packed_bytes=packed.stat().st_size,
    )
    remote.put([(f"{_PREFIX}{name}/database.gz", packed)])
    remote.put([(f"{_PREFIX}{name}/{_MANIFEST}", json.dumps(asdict(manifest), indent=2).encode())])
    packed.unlink()
    return manifest


def put_delta(remote: Remote, snapshot: str, number: int, delta: Path) -> None:
    """Store the next delta of a snapshot's log; numbers start at 1. Raises BackupUnreachableError."""
    remote.put([(f"{_PREFIX}{snapshot}/log/{number:06d}.gz", delta)])


def read_manifest(remote: Remote, name: str) -> SnapshotManifest:
    """Read the manifest of a snapshot. Raises NotFoundError, BackupDamagedError, BackupUnreachableError."""
    try:
        manifest = SnapshotManifest(**json.loads(remote.read(f"{_PREFIX}{name}/{_MANIFEST}")))
    except (ValueError, TypeError) as error:
        raise BackupDamagedError(f"the manifest of snapshot {name} is not one: {error}") from error
    if manifest.format != FORMAT:
        raise BackupDamagedError(f"snapshot {name} is of format {manifest.format}; this version reads format {FORMAT}")
    return manifest


@dataclass(frozen=True, slots=True)
class RebuiltDatabase:
    """A rebuilt database, with `num_deltas` of the log's `num_logged` deltas; `log_fault`: the reason if not all."""

    manifest: SnapshotManifest
    num_deltas: int
    num_logged: int
    log_fault: str | None = None


def rebuild(remote: Remote, name: str, target: Path, scratch: Path, *, at_most: int | None = None) -> RebuiltDatabase:
    """Rebuild a database at `target` from a snapshot and its log; every hash on the way is checked.

    `at_most`: deltas that are applied; None: all. A log that is damaged from some delta on counts up to there. Raises
    BackupDamagedError when the snapshot itself is; NotFoundError, BackupUnreachableError.
    """
    manifest = read_manifest(remote, name)
    logged_names = _delta_names(remote, name)
    delta_names = logged_names[:at_most]
    _unpack(remote, manifest, target, scratch)
    num_applied, trouble = _apply_all(remote, delta_names, target, scratch, manifest.sha256, check_each=False)
    if trouble is None:
        return RebuiltDatabase(manifest, num_applied, len(logged_names))
    # Once more, now checking the database after each delta, to find the one up to which all is whole.
    _unpack(remote, manifest, target, scratch)
    num_applied, trouble = _apply_all(remote, delta_names, target, scratch, manifest.sha256, check_each=True)
    _log.warning(
        "snapshot %s: its log is whole up to delta %d of %d: %s", name, num_applied, len(logged_names), trouble
    )
    _unpack(remote, manifest, target, scratch)
    _apply_all(remote, delta_names[:num_applied], target, scratch, manifest.sha256, check_each=True)
    return RebuiltDatabase(manifest, num_applied, len(logged_names), trouble)


def _unpack(remote: Remote, manifest: SnapshotManifest, target: Path, scratch: Path) -> None:
    packed = scratch / "database.gz"
    remote.fetch([(f"{_PREFIX}{manifest.name}/database.gz", packed)])
    if sha256_of_file(packed) != manifest.packed_sha256:
        raise BackupDamagedError(f"snapshot {manifest.name}: database.gz is not what its manifest says")
    if decompress(packed, target) != manifest.sha256:
        raise BackupDamagedError(f"snapshot {manifest.name}: the database is not what its manifest says")
    packed.unlink()


def _apply_all(
    remote: Remote, names: Sequence[str], database: Path, scratch: Path, sha256: str, *, check_each: bool
) -> tuple[int, str | None]:
    """Apply deltas; returns their number, and the fault of the next one or of the database they lead to."""
    num_applied = 0
    for start in range(0, len(names), _DELTAS_PER_FETCH):
        items = [(name, scratch / name.rpartition("/")[2]) for name in names[start : start + _DELTAS_PER_FETCH]]
        try:
            remote.fetch(items)
            for _, path in items:
                sha256 = apply_delta(path, database, sha256, check_hash=check_each)
                num_applied += 1
                path.unlink()
        except (BackupDamagedError, NotFoundError) as error:
            return num_applied, str(error)
    if not check_each and names and sha256_of_file(database) != sha256:
        return num_applied, "what the log leads to is not what it says"
    return num_applied, None


def _delta_names(remote: Remote, snapshot: str) -> list[str]:
    """List the deltas of a snapshot's log, in order, up to the first that is missing."""
    prefix = f"{_PREFIX}{snapshot}/log/"
    existing_names = set(remote.names(prefix))
    expected_names = [f"{prefix}{number:06d}.gz" for number in range(1, len(existing_names) + 1)]
    return expected_names[
        : next((i for i, name in enumerate(expected_names) if name not in existing_names), len(expected_names))
    ]


def prune(remote: Remote, *, keep_snapshots: int, keep_days: int, now: datetime) -> list[str]:
    """Delete old snapshots, and those that never got a manifest; returns the names left.

    Kept are the newest `keep_snapshots`, and the last one of each of the last `keep_days` days. Raises
    BackupUnreachableError.
    """
    names = snapshot_names(remote)
    kept_names = set(names[-keep_snapshots:])
    last_of_day = {name[16:24]: name for name in names}
    oldest_day = (now.astimezone(UTC) - timedelta(days=keep_days)).strftime("%Y%m%d")
    kept_names |= {name for day, name in last_of_day.items() if day > oldest_day}
    newest = names[-1:]
    # The manifest goes first: a snapshot that is half removed must not look like a whole one.
    everything = remote.names(_PREFIX)
    stale_files = [name for name in everything if (part := name.split("/")[1]) not in kept_names and [part] < newest]
    remote.delete([name for name in stale_files if name.endswith(_MANIFEST)])
    remote.delete([name for name in stale_files if not name.endswith(_MANIFEST)])
    return sorted(kept_names)


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


def compare_copies(before: Path, before_sha256: str, after: Path) -> DeltaHeader:
    """Compare two copies of a database: the header of the delta from one to the other."""
    page_bytes = _page_bytes(after)
    changed_pages: list[int] = []
    with before.open("rb") as old, after.open("rb") as new:
        first = 0
        while chunk := new.read(_CHUNK):
            changed_pages += [first + page for page in _different_pages(old.read(_CHUNK), chunk, page_bytes)]
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


def _different_pages(old: bytes, new: bytes, page_bytes: int) -> list[int]:
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

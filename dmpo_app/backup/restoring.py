"""A home from its backup: the newest snapshot that is whole, its log, and the files that it names.

Files go where they belong at once, each by a rename after its hash was checked; the database comes last. So a restore
that is cut off leaves a home without a database, and the next one goes on from there.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dmpo_app.backup.home_files import KEY_NAME, PREFIX, NeededFile, fault_of, is_home_file, needed_files
from dmpo_app.backup.remotes.remote import Remote
from dmpo_app.backup.snapshots import Rebuilt, rebuild, snapshot_names
from dmpo_app.errors import BackupDamaged, NotFound, SetupProblem
from dmpo_app.store.db.migrate import HEAD
from dmpo_app.store.db.sqlite import open_copy, safe_driver
from dmpo_app.store.store import DATABASE_NAME

log = logging.getLogger(__name__)

_SCRATCH = "restoring"
_FILES_TOGETHER = 128


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore came to. `faults`: files that the backup does not have or not whole; `skipped`: snapshots."""

    rebuilt: Rebuilt
    votes: int
    num_files: int
    faults: Sequence[str]
    skipped: Sequence[str]


def restore(
    remote: Remote,
    home: Path,
    *,
    snapshot: str | None = None,
    with_log: bool = True,
    on_progress: Callable[[str], None] = log.info,
) -> Restored | None:
    """Restore into a home that has no database; None when the backup has no snapshot.

    `snapshot`: that one and no other; else the newest that is whole. Raises BackupDamaged when none is, SetupProblem
    for a home in use or a snapshot of a newer version, NotFound, BackupUnreachable.
    """
    if (home / DATABASE_NAME).exists():
        raise SetupProblem(f"{home} has a database already; restore into another folder")
    names = snapshot_names(remote)
    if snapshot is not None and snapshot not in names:
        raise NotFound(f"there is no snapshot {snapshot} at {remote.url}; there are: {', '.join(names) or 'none'}")
    if not names:
        return None
    scratch = home / _SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    database = scratch / DATABASE_NAME
    try:
        wanted = [snapshot] if snapshot is not None else names[::-1]
        rebuilt, skipped = _first_whole(remote, wanted, database, scratch, with_log, on_progress)
        with open_copy(database) as connection:
            votes = int(connection.execute("SELECT count(*) FROM votes").fetchone()[0])
            needed = list(needed_files(connection))
        num_files, faults = fetch_files(remote, home, [NeededFile(KEY_NAME, None, "sessions"), *needed], on_progress)
        _put_in_place(database, home / DATABASE_NAME)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Restored(rebuilt, votes, num_files, faults, skipped)


def fetch_files(
    remote: Remote, home: Path, needed: Sequence[NeededFile], on_progress: Callable[[str], None] = log.info
) -> tuple[int, list[str]]:
    """Fetch those of the needed files that a home does not have; returns how many, and what was wrong with others.

    Only what is whole is put in place. Raises BackupUnreachable.
    """
    there = set(remote.names(PREFIX))
    wanted = [file for file in needed if is_home_file(file.path) and not (home / file.path).exists()]
    absent = [file for file in wanted if PREFIX + file.path not in there]
    faults = [f"{file.path} ({file.why}) is not in the backup" for file in absent]
    wanted = [file for file in wanted if PREFIX + file.path in there]
    scratch = home / _SCRATCH
    scratch.mkdir(parents=True, exist_ok=True)
    fetched = 0
    for start in range(0, len(wanted), _FILES_TOGETHER):
        some = wanted[start : start + _FILES_TOGETHER]
        for file in some:
            (scratch / file.path).parent.mkdir(parents=True, exist_ok=True)
        remote.fetch([(PREFIX + file.path, scratch / file.path) for file in some])
        for file in some:
            fault = None if file.path == KEY_NAME else fault_of(scratch, file)
            if fault is None:
                _put_in_place(scratch / file.path, home / file.path)
                fetched += 1
            else:
                faults.append(f"{file.path} ({file.why}) {fault} in the backup")
        on_progress(f"{min(start + _FILES_TOGETHER, len(wanted))} of {len(wanted)} files restored")
    return fetched, faults


def check_database(database: Path) -> None:
    """Raises BackupDamaged for a copy that SQLite finds fault with, SetupProblem for one of a newer version."""
    try:
        with open_copy(database) as connection:
            said = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
            dangling = {str(row[0]) for row in connection.execute("PRAGMA foreign_key_check")}
            revision = str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])
    except safe_driver().Error as error:
        raise BackupDamaged(f"SQLite cannot read the database: {error}") from error
    if said != ["ok"]:
        raise BackupDamaged(f"SQLite finds the database damaged: {'; '.join(said)}")
    if dangling:
        raise BackupDamaged(f"rows refer to rows that are not there, in {', '.join(sorted(dangling))}")
    if revision > HEAD:
        raise SetupProblem(
            f"this backup was written by a newer version of DMPO Studio (schema {revision}, this version knows "
            f"{HEAD}); update the program"
        )


def _first_whole(
    remote: Remote,
    names: Sequence[str],
    database: Path,
    scratch: Path,
    with_log: bool,
    on_progress: Callable[[str], None],
) -> tuple[Rebuilt, list[str]]:
    skipped: list[str] = []
    for name in names:
        on_progress(f"restoring snapshot {name}")
        try:
            rebuilt = rebuild(remote, name, database, scratch, at_most=None if with_log else 0)
            check_database(database)
        except (BackupDamaged, NotFound) as error:
            log.warning("snapshot %s is not whole, the one before it is taken: %s", name, error)
            skipped.append(f"{name}: {error}")
            continue
        return rebuilt, skipped
    raise BackupDamaged(f"no snapshot at {remote.url} is whole: {'; '.join(skipped)}")


def _put_in_place(source: Path, target: Path) -> None:
    """Move a finished file to its place, durably."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as file:
        os.fsync(file.fileno())
    if target.name == KEY_NAME:
        source.chmod(0o600)
    source.replace(target)

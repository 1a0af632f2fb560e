"""Restoring a home from its backup: the newest intact snapshot, its log, and the files that it names.

Files go where they belong at once, each by a rename after its hash was checked; the database comes last. So a restore
that is cut off leaves a home without a database, and the next one goes on from there.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dmpo_app.backup.home_files import PREFIX, ReferencedFile, check_file, is_home_file, referenced_files
from dmpo_app.backup.remotes.remote import Remote
from dmpo_app.backup.snapshots import RebuiltDatabase, rebuild, snapshot_names
from dmpo_app.errors import BackupDamagedError, NotFoundError, SetupError
from dmpo_app.io import move_durably
from dmpo_app.store.db.database import HEAD
from dmpo_app.store.db.sqlite import open_copy, safe_driver
from dmpo_app.store.store import DATABASE_NAME, SECRET_KEY_NAME

log = logging.getLogger(__name__)

_SCRATCH = "restoring"
_FILES_TOGETHER = 128


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """Result of a restore. `faults`: files missing or damaged in the backup; `damaged_snapshots`: those passed over."""

    rebuilt: RebuiltDatabase
    votes: int
    num_files: int
    faults: Sequence[str]
    damaged_snapshots: Sequence[str]


def restore(
    remote: Remote,
    home: Path,
    *,
    snapshot: str | None = None,
    with_log: bool = True,
    on_progress: Callable[[str], None] = log.info,
) -> RestoreResult | None:
    """Restore into a home that has no database; None when the backup has no snapshot.

    `snapshot`: that one and no other; else the newest that is whole. Raises BackupDamagedError when none is, SetupError
    for a home in use or a snapshot of a newer version, NotFoundError, BackupUnreachableError.
    """
    if (home / DATABASE_NAME).exists():
        raise SetupError(f"{home} has a database already; restore into another folder")
    names = snapshot_names(remote)
    if snapshot is not None and snapshot not in names:
        raise NotFoundError(f"there is no snapshot {snapshot} at {remote.url}; there are: {', '.join(names) or 'none'}")
    if not names:
        return None
    scratch = home / _SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    database = scratch / DATABASE_NAME
    try:
        candidates = [snapshot] if snapshot is not None else names[::-1]
        rebuilt, damaged_snapshots = _first_whole(remote, candidates, database, scratch, with_log, on_progress)
        with open_copy(database) as connection:
            votes = int(connection.execute("SELECT count(*) FROM votes").fetchone()[0])
            referenced = list(referenced_files(connection))
        num_files, faults = fetch_files(
            remote, home, [ReferencedFile(SECRET_KEY_NAME, None, "sessions"), *referenced], on_progress
        )
        _put_in_place(database, home / DATABASE_NAME)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return RestoreResult(rebuilt, votes, num_files, faults, damaged_snapshots)


def fetch_files(
    remote: Remote, home: Path, referenced: Sequence[ReferencedFile], on_progress: Callable[[str], None] = log.info
) -> tuple[int, list[str]]:
    """Fetch those of the needed files that a home does not have; returns how many, and what was wrong with others.

    Only what is whole is put in place. Raises BackupUnreachableError.
    """
    remote_names = set(remote.names(PREFIX))
    missing_files = [file for file in referenced if is_home_file(file.path) and not (home / file.path).exists()]
    absent = [file for file in missing_files if PREFIX + file.path not in remote_names]
    faults = [f"{file.path} ({file.purpose}) is not in the backup" for file in absent]
    missing_files = [file for file in missing_files if PREFIX + file.path in remote_names]
    scratch = home / _SCRATCH
    scratch.mkdir(parents=True, exist_ok=True)
    num_fetched = 0
    for start in range(0, len(missing_files), _FILES_TOGETHER):
        some = missing_files[start : start + _FILES_TOGETHER]
        for file in some:
            (scratch / file.path).parent.mkdir(parents=True, exist_ok=True)
        remote.fetch([(PREFIX + file.path, scratch / file.path) for file in some])
        for file in some:
            fault = None if file.path == SECRET_KEY_NAME else check_file(scratch, file)
            if fault is None:
                _put_in_place(scratch / file.path, home / file.path)
                num_fetched += 1
            else:
                faults.append(f"{file.path} ({file.purpose}) {fault} in the backup")
        on_progress(f"{min(start + _FILES_TOGETHER, len(missing_files))} of {len(missing_files)} files restored")
    return num_fetched, faults


def check_database(database: Path) -> None:
    """Check a copy of the database.

    Raises BackupDamagedError where SQLite finds fault with it, SetupError for one of a newer version.
    """
    try:
        with open_copy(database) as connection:
            integrity_messages = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
            dangling_tables = {str(row[0]) for row in connection.execute("PRAGMA foreign_key_check")}
            revision = str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])
    except safe_driver().Error as error:
        raise BackupDamagedError(f"SQLite cannot read the database: {error}") from error
    if integrity_messages != ["ok"]:
        raise BackupDamagedError(f"SQLite finds the database damaged: {'; '.join(integrity_messages)}")
    if dangling_tables:
        raise BackupDamagedError(f"rows refer to rows that are not there, in {', '.join(sorted(dangling_tables))}")
    if revision > HEAD:
        raise SetupError(
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
) -> tuple[RebuiltDatabase, list[str]]:
    damaged_snapshots: list[str] = []
    for name in names:
        on_progress(f"restoring snapshot {name}")
        try:
            rebuilt = rebuild(remote, name, database, scratch, at_most=None if with_log else 0)
            check_database(database)
        except (BackupDamagedError, NotFoundError) as error:
            log.warning("snapshot %s is not whole, the one before it is taken: %s", name, error)
            damaged_snapshots.append(f"{name}: {error}")
            continue
        return rebuilt, damaged_snapshots
    raise BackupDamagedError(f"no snapshot at {remote.url} is whole: {'; '.join(damaged_snapshots)}")


def _put_in_place(source: Path, target: Path) -> None:
    """Move a restored file to its place, the key for its owner alone."""
    if target.name == SECRET_KEY_NAME:
        source.chmod(0o600)
    move_durably(source, target)

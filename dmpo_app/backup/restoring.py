"""Restoring a home from its backup, and the integrity check of a home.

Restored are the newest intact snapshot, its log, and the files that it names. Files go where they belong at once, each
by a rename after its hash was checked; the database comes last. So a restore that is cut off leaves a home without a
database, and the next one goes on from there.

Checked are the database, the files it names, versions, counts, and files that nothing names. Checking changes nothing
but the marks of damaged files, by which pairs leave the pool and rejoin it (`store.damage`).
Repair moves what is damaged aside, fetches it anew from the backup, and removes what a killed process left half
written. Votes are never touched.
"""

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dmpo_app.backup import home_files
from dmpo_app.backup.remotes.remote import Remote
from dmpo_app.backup.snapshots import RebuiltDatabase, rebuild, snapshot_names
from dmpo_app.domain.lineage import TakenBack
from dmpo_app.errors import BackupDamagedError, NotFoundError, SetupError
from dmpo_app.io.files import move_durably
from dmpo_app.store.damage import Damage, DamagedPair
from dmpo_app.store.db.database import HEAD, Database, current_revision, sqlite_url
from dmpo_app.store.db.sqlite import DatabaseCopier, first_cell, open_copy, safe_driver
from dmpo_app.store.files import DAMAGED_FOLDER, Files
from dmpo_app.store.home import SECRET_KEY_NAME, make_home
from dmpo_app.store.store import DATABASE_NAME, utc_now
from dmpo_app.store.voting.taken_back import TakenBackVotes

_log = logging.getLogger(__name__)

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
    on_progress: Callable[[str], None] = _log.info,
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
    make_home(home)
    scratch.mkdir()
    database = scratch / DATABASE_NAME
    try:
        candidates = [snapshot] if snapshot is not None else names[::-1]
        rebuilt, damaged_snapshots = _first_whole(remote, candidates, database, scratch, with_log, on_progress)
        with open_copy(database) as connection:
            votes = int(first_cell(connection, "SELECT count(*) FROM votes"))
            referenced = list(home_files.referenced_files(connection))
        num_files, faults = fetch_files(
            remote, home, [home_files.ReferencedFile(SECRET_KEY_NAME, None, "sessions"), *referenced], on_progress
        )
        _put_in_place(database, home / DATABASE_NAME)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return RestoreResult(rebuilt, votes, num_files, faults, damaged_snapshots)


def fetch_files(
    remote: Remote,
    home: Path,
    referenced: Sequence[home_files.ReferencedFile],
    on_progress: Callable[[str], None] = _log.info,
) -> tuple[int, list[str]]:
    """Fetch those of the needed files that a home does not have; returns how many, and what was wrong with others.

    Only what is whole is put in place. Raises BackupUnreachableError.
    """
    remote_names = set(remote.names(home_files.PREFIX))
    missing_files = [
        file for file in referenced if home_files.is_home_file(file.path) and not (home / file.path).exists()
    ]
    absent = [file for file in missing_files if home_files.PREFIX + file.path not in remote_names]
    faults = [f"{file.path} ({file.purpose}) is not in the backup" for file in absent]
    missing_files = [file for file in missing_files if home_files.PREFIX + file.path in remote_names]
    scratch = home / _SCRATCH
    scratch.mkdir(parents=True, exist_ok=True)
    num_fetched = 0
    for start in range(0, len(missing_files), _FILES_TOGETHER):
        some = missing_files[start : start + _FILES_TOGETHER]
        for file in some:
            (scratch / file.path).parent.mkdir(parents=True, exist_ok=True)
        remote.fetch([(home_files.PREFIX + file.path, scratch / file.path) for file in some])
        for file in some:
            fault = None if file.path == SECRET_KEY_NAME else home_files.check_file(scratch, file)
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
            revision = str(first_cell(connection, "SELECT version_num FROM alembic_version"))
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
            _log.warning("snapshot %s is not whole, the one before it is taken: %s", name, error)
            damaged_snapshots.append(f"{name}: {error}")
            continue
        return rebuilt, damaged_snapshots
    raise BackupDamagedError(f"no snapshot at {remote.url} is whole: {'; '.join(damaged_snapshots)}")


def _put_in_place(source: Path, target: Path) -> None:
    """Move a restored file to its place, the key for its owner alone."""
    if target.name == SECRET_KEY_NAME:
        source.chmod(0o600)
    move_durably(source, target)


_YOUNG_SECONDS = 3600.0
"""A file is written before the row that names it, so what is younger may be on its way."""
_WRONG_COUNTS = """
SELECT count(*) FROM pairs p WHERE num_votes <>
    (SELECT count(*) FROM votes v WHERE v.pair_id = p.id AND undone_at IS NULL AND withdrawn_at IS NULL)
"""


class IssueKind(StrEnum):
    """Subject of a finding."""

    DATABASE = "database"
    FILE = "file"
    LEFTOVER = "leftover"
    ORPHAN = "orphan"
    BACKUP = "backup"


@dataclass(frozen=True, slots=True)
class IntegrityIssue:
    """An integrity fault. `path`: below the home, where there is one. `file`: the file that it should be."""

    kind: IssueKind
    description: str
    path: str = ""
    file: home_files.ReferencedFile | None = None


@dataclass(frozen=True, slots=True)
class IntegrityReport:
    """Result of an integrity check. `num_files`: files that the database names; `votes`: votes that it holds."""

    issues: list[IntegrityIssue]
    num_files: int
    votes: int


def verify(home: Path, *, on_progress: Callable[[int, int], None] | None = None) -> IntegrityReport:
    """Check the whole home; a running studio is not disturbed. Raises SetupError where there is no database."""
    with closing(DatabaseCopier(home / DATABASE_NAME)) as copier, _verify_folder(home) as folder:
        copy = folder / DATABASE_NAME
        try:
            copier.copy(copy)
            check_database(copy)
        except (BackupDamagedError, safe_driver().Error) as error:
            return IntegrityReport([IntegrityIssue(IssueKind.DATABASE, str(error), DATABASE_NAME)], 0, 0)
        with open_copy(copy) as connection:
            referenced = list(home_files.referenced_files(connection))
            votes = int(first_cell(connection, "SELECT count(*) FROM votes"))
            wrong = int(first_cell(connection, _WRONG_COUNTS))
    issues = [IntegrityIssue(IssueKind.DATABASE, f"{wrong} pairs do not count their votes right")] if wrong else []
    for number, file in enumerate(referenced):
        fault = (
            home_files.check_file(home, file)
            if home_files.is_home_file(file.path)
            else "is no name of a file of a home"
        )
        if fault is not None:
            issues.append(IntegrityIssue(IssueKind.FILE, f"{file.path} ({file.purpose}) {fault}", file.path, file))
        if on_progress is not None:
            on_progress(number + 1, len(referenced))
    issues += _leftovers(home)
    issues += _orphans(home, {file.path for file in referenced})
    return IntegrityReport(issues, len(referenced), votes)


def mark_damage(home: Path, issues: Sequence[IntegrityIssue]) -> list[DamagedPair] | None:
    """Mark the files of these findings as damaged and clear the marks of all others; returns the pairs concerned.

    None, and nothing is marked, for a home of an older schema: a check is not to bring it to the present one.
    """
    damaged_paths = {finding.path for finding in issues if finding.file is not None and not _is_whole(home, finding)}
    database = Database.open(sqlite_url(home / DATABASE_NAME))
    with closing(database):
        with database.reader() as connection:
            if current_revision(connection) != HEAD:
                return None
        damage = Damage(database, Files(home), utc_now)
        damage.record_paths(damaged_paths)
        damage.clear(damage.marked_images() - {Path(path).stem for path in damaged_paths})
        damage.recheck_tensors()
        return damage.list()


def find_taken_back(home: Path) -> list[TakenBack] | None:
    """Find the versions of a home that learned from votes which were taken back since; None for an older schema."""
    database = Database.open(sqlite_url(home / DATABASE_NAME))
    with closing(database):
        with database.reader() as connection:
            if current_revision(connection) != HEAD:
                return None
        return TakenBackVotes(database).list_versions()


def _is_whole(home: Path, finding: IntegrityIssue) -> bool:
    return finding.file is not None and home_files.check_file(home, finding.file) is None


def verify_backup(remote: Remote) -> IntegrityIssue | None:
    """Rebuild the newest snapshot with its log and check it. Raises BackupUnreachableError."""
    names = snapshot_names(remote)
    if not names:
        return IntegrityIssue(IssueKind.BACKUP, f"there is no snapshot at {remote.url}")
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / DATABASE_NAME
        try:
            rebuilt = rebuild(remote, names[-1], database, Path(folder))
            check_database(database)
        except (BackupDamagedError, NotFoundError) as error:
            return IntegrityIssue(IssueKind.BACKUP, f"the newest snapshot, {names[-1]}, is not whole: {error}")
    if rebuilt.log_fault is not None:
        position = f"after {rebuilt.num_deltas} of {rebuilt.num_logged} changes"
        return IntegrityIssue(IssueKind.BACKUP, f"the log of {names[-1]} breaks off {position}: {rebuilt.log_fault}")
    return None


def repair_home(home: Path, issues: list[IntegrityIssue], remote: Remote | None) -> list[tuple[IntegrityIssue, str]]:
    """Repair what can be repaired; returns each finding with its outcome. Raises BackupUnreachableError."""
    outcomes: list[tuple[IntegrityIssue, str]] = []
    files = [finding for finding in issues if finding.file is not None]
    if remote is not None:
        backup_names = set(remote.names(home_files.PREFIX))
        for finding in files:
            if home_files.PREFIX + finding.path in backup_names:
                _move_aside(home, finding.path)
        fetch_files(remote, home, [finding.file for finding in files if finding.file is not None])
    for finding in issues:
        if finding.file is not None:
            whole = home_files.check_file(home, finding.file) is None
            failure = "not mended: there is no backup to fetch it from" if remote is None else "not in the backup"
            outcomes.append((finding, "fetched from the backup" if whole else failure))
        elif finding.kind is IssueKind.LEFTOVER:
            _remove(home / finding.path)
            outcomes.append((finding, "removed"))
        elif finding.kind is IssueKind.ORPHAN:
            _move_aside(home, finding.path)
            outcomes.append((finding, f"moved to {DAMAGED_FOLDER}/"))
        else:
            outcomes.append((finding, "not mended: restore a snapshot with `dmpo restore` into another folder"))
    return outcomes


@contextmanager
def _verify_folder(home: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=home, prefix="verify-") as folder:
        yield Path(folder)


def _leftovers(home: Path) -> Iterator[IntegrityIssue]:
    """Half-written files of processes that were killed."""
    candidates = [*home.glob("tmp/*"), *home.glob("adapters/*/.staging-*"), *home.glob("verify-*"), home / _SCRATCH]
    for path in candidates:
        if _age_seconds(path) > _YOUNG_SECONDS:
            relative = path.relative_to(home).as_posix()
            yield IntegrityIssue(IssueKind.LEFTOVER, f"{relative} was never finished", relative)


def _orphans(home: Path, referenced_paths: set[str]) -> Iterator[IntegrityIssue]:
    """Whole files that no row names: of images deleted in between, or of a publisher that was killed."""
    for path in sorted(home_files.HomeFileScanner(home).list_paths() - referenced_paths):
        if "/" in path and _age_seconds(home / path) > _YOUNG_SECONDS:
            yield IntegrityIssue(IssueKind.ORPHAN, f"{path} is named by nothing", path)


def _age_seconds(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _move_aside(home: Path, path: str) -> None:
    if (home / path).exists():
        target = home / DAMAGED_FOLDER / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (home / path).replace(target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

"""Integrity check of a home: its database, the files it names, versions, counts; and files that nothing names.

Checking changes nothing. Repair moves what is damaged aside, fetches it anew from the backup, and removes what a killed
process left half written. Votes and rows are never touched.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from dmpo_app.backup.home_files import (
    PREFIX,
    HomeFileScanner,
    ReferencedFile,
    check_file,
    is_home_file,
    referenced_files,
)
from dmpo_app.backup.remotes.remote import Remote
from dmpo_app.backup.restoring import check_database, fetch_files
from dmpo_app.backup.snapshots import rebuild, snapshot_names
from dmpo_app.errors import BackupDamagedError, NotFoundError
from dmpo_app.store.db.sqlite import DatabaseCopier, open_copy, safe_driver
from dmpo_app.store.store import DATABASE_NAME

DAMAGED_FOLDER = "damaged"
"""The folder of a home where damaged files are moved to."""
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
    file: ReferencedFile | None = None


@dataclass(frozen=True, slots=True)
class IntegrityReport:
    """Result of an integrity check. `num_files`: files that the database names; `votes`: votes that it holds."""

    issues: list[IntegrityIssue]
    num_files: int
    votes: int


def verify(home: Path, *, on_progress: Callable[[int, int], None] | None = None) -> IntegrityReport:
    """Check the whole home; a running studio is not disturbed. Raises SetupError where there is no database."""
    with closing(DatabaseCopier(home / DATABASE_NAME)) as copier, _scratch(home) as folder:
        copy = folder / DATABASE_NAME
        try:
            copier.copy(copy)
            check_database(copy)
        except (BackupDamagedError, safe_driver().Error) as error:
            return IntegrityReport([IntegrityIssue(IssueKind.DATABASE, str(error), DATABASE_NAME)], 0, 0)
        with open_copy(copy) as connection:
            referenced = list(referenced_files(connection))
            votes = int(_first(connection, "SELECT count(*) FROM votes"))
            wrong = int(_first(connection, _WRONG_COUNTS))
    issues = [IntegrityIssue(IssueKind.DATABASE, f"{wrong} pairs do not count their votes right")] if wrong else []
    for number, file in enumerate(referenced):
        fault = check_file(home, file) if is_home_file(file.path) else "is no name of a file of a home"
        if fault is not None:
            issues.append(IntegrityIssue(IssueKind.FILE, f"{file.path} ({file.purpose}) {fault}", file.path, file))
        if on_progress is not None:
            on_progress(number + 1, len(referenced))
    issues += _leftovers(home)
    issues += _orphans(home, {file.path for file in referenced})
    return IntegrityReport(issues, len(referenced), votes)


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
        backup_names = set(remote.names(PREFIX))
        for finding in files:
            if PREFIX + finding.path in backup_names:
                _move_aside(home, finding.path)
        fetch_files(remote, home, [finding.file for finding in files if finding.file is not None])
    for finding in issues:
        if finding.file is not None:
            whole = check_file(home, finding.file) is None
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
def _scratch(home: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=home, prefix="verify-") as folder:
        yield Path(folder)


def _leftovers(home: Path) -> Iterator[IntegrityIssue]:
    """Half-written files of processes that were killed."""
    candidates = [*home.glob("tmp/*"), *home.glob("adapters/*/.staging-*"), *home.glob("verify-*"), home / "restoring"]
    for path in candidates:
        if _age_seconds(path) > _YOUNG_SECONDS:
            relative = path.relative_to(home).as_posix()
            yield IntegrityIssue(IssueKind.LEFTOVER, f"{relative} was never finished", relative)


def _orphans(home: Path, referenced_paths: set[str]) -> Iterator[IntegrityIssue]:
    """Whole files that no row names: of images deleted in between, or of a publisher that was killed."""
    for path in sorted(HomeFileScanner(home).list_paths() - referenced_paths):
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


def _first(connection: Any, query: str) -> Any:
    return connection.execute(query).fetchone()[0]

"""Is a home whole: its database, the files it names, its versions, its counts; and what lies there that nothing names.

Looking changes nothing. Mending moves what is damaged aside, fetches it anew from the backup, and removes what a killed
process left half written. Votes and rows are never touched.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from dmpo_app.backup.home_files import PREFIX, HomeFiles, NeededFile, fault_of, is_home_file, needed_files
from dmpo_app.backup.remotes.remote import Remote
from dmpo_app.backup.restoring import check_database, fetch_files
from dmpo_app.backup.snapshots import rebuild, snapshot_names
from dmpo_app.errors import BackupDamaged, NotFound
from dmpo_app.store.db.sqlite import DatabaseCopier, open_copy, safe_driver
from dmpo_app.store.store import DATABASE_NAME

DAMAGED = "damaged"
"""The folder of a home where damaged files are moved to."""
_YOUNG_SECONDS = 3600.0
"""A file is written before the row that names it, so what is younger may be on its way."""
_WRONG_COUNTS = """
SELECT count(*) FROM pairs p WHERE num_votes <>
    (SELECT count(*) FROM votes v WHERE v.pair_id = p.id AND undone_at IS NULL AND withdrawn_at IS NULL)
"""


class Kind(StrEnum):
    """What a finding is about."""

    DATABASE = "database"
    FILE = "file"
    LEFTOVER = "leftover"
    ORPHAN = "orphan"
    BACKUP = "backup"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be. `path`: below the home, where there is one. `file`: what it should be."""

    kind: Kind
    words: str
    path: str = ""
    file: NeededFile | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """`num_files`: how many the database names; `votes`: how many it holds."""

    findings: list[Finding]
    num_files: int
    votes: int


def verify(home: Path, *, on_progress: Callable[[int, int], None] | None = None) -> Verified:
    """Look at everything; a running studio is not disturbed. Raises SetupProblem where there is no database."""
    with closing(DatabaseCopier(home / DATABASE_NAME)) as copier, _scratch(home) as folder:
        copy = folder / DATABASE_NAME
        try:
            copier.copy(copy)
            check_database(copy)
        except (BackupDamaged, safe_driver().Error) as error:
            return Verified([Finding(Kind.DATABASE, str(error), DATABASE_NAME)], 0, 0)
        with open_copy(copy) as connection:
            needed = list(needed_files(connection))
            votes = int(_first(connection, "SELECT count(*) FROM votes"))
            wrong = int(_first(connection, _WRONG_COUNTS))
    findings = [Finding(Kind.DATABASE, f"{wrong} pairs do not count their votes right")] if wrong else []
    for number, file in enumerate(needed):
        fault = fault_of(home, file) if is_home_file(file.path) else "is no name of a file of a home"
        if fault is not None:
            findings.append(Finding(Kind.FILE, f"{file.path} ({file.why}) {fault}", file.path, file))
        if on_progress is not None:
            on_progress(number + 1, len(needed))
    findings += _leftovers(home)
    findings += _orphans(home, {file.path for file in needed})
    return Verified(findings, len(needed), votes)


def verify_backup(remote: Remote) -> Finding | None:
    """Put the newest snapshot and its log together and look at it. Raises BackupUnreachable."""
    names = snapshot_names(remote)
    if not names:
        return Finding(Kind.BACKUP, f"there is no snapshot at {remote.url}")
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / DATABASE_NAME
        try:
            rebuilt = rebuild(remote, names[-1], database, Path(folder))
            check_database(database)
        except (BackupDamaged, NotFound) as error:
            return Finding(Kind.BACKUP, f"the newest snapshot, {names[-1]}, is not whole: {error}")
    if rebuilt.trouble is not None:
        where = f"after {rebuilt.num_deltas} of {rebuilt.num_logged} changes"
        return Finding(Kind.BACKUP, f"the log of {names[-1]} breaks off {where}: {rebuilt.trouble}")
    return None


def mend(home: Path, findings: list[Finding], remote: Remote | None) -> list[tuple[Finding, str]]:
    """Mend what can be mended; returns each finding with what became of it. Raises BackupUnreachable."""
    outcomes: list[tuple[Finding, str]] = []
    files = [finding for finding in findings if finding.file is not None]
    if remote is not None:
        there = set(remote.names(PREFIX))
        for finding in files:
            if PREFIX + finding.path in there:
                _move_aside(home, finding.path)
        fetch_files(remote, home, [finding.file for finding in files if finding.file is not None])
    for finding in findings:
        if finding.file is not None:
            whole = fault_of(home, finding.file) is None
            instead = "not mended: there is no backup to fetch it from" if remote is None else "not in the backup"
            outcomes.append((finding, "fetched from the backup" if whole else instead))
        elif finding.kind is Kind.LEFTOVER:
            _remove(home / finding.path)
            outcomes.append((finding, "removed"))
        elif finding.kind is Kind.ORPHAN:
            _move_aside(home, finding.path)
            outcomes.append((finding, f"moved to {DAMAGED}/"))
        else:
            outcomes.append((finding, "not mended: restore a snapshot with `dmpo restore` into another folder"))
    return outcomes


@contextmanager
def _scratch(home: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=home, prefix="verify-") as folder:
        yield Path(folder)


def _leftovers(home: Path) -> Iterator[Finding]:
    """What processes that were killed left half written."""
    candidates = [*home.glob("tmp/*"), *home.glob("adapters/*/.staging-*"), *home.glob("verify-*"), home / "restoring"]
    for path in candidates:
        if _age_seconds(path) > _YOUNG_SECONDS:
            relative = path.relative_to(home).as_posix()
            yield Finding(Kind.LEFTOVER, f"{relative} was never finished", relative)


def _orphans(home: Path, named: set[str]) -> Iterator[Finding]:
    """Whole files that no row names: of pictures deleted in between, or of a publisher that was killed."""
    for path in sorted(HomeFiles(home).paths() - named):
        if "/" in path and _age_seconds(home / path) > _YOUNG_SECONDS:
            yield Finding(Kind.ORPHAN, f"{path} is named by nothing", path)


def _age_seconds(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _move_aside(home: Path, path: str) -> None:
    if (home / path).exists():
        target = home / DAMAGED / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (home / path).replace(target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _first(connection: Any, query: str) -> Any:
    return connection.execute(query).fetchone()[0]

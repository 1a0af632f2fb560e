"""Upload to the backup: one pass stores whatever a home has and its backup has not, files first, then the database.

A database in the backup never names a file that is not there. What changed is the difference of two copies of the
database, so every table is in it, whoever wrote; no vote is slowed down by it.
"""

import logging
import shutil
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from dmpo_app.backup.home_files import PREFIX, HomeFileScanner, referenced_files
from dmpo_app.backup.page_delta import compare, write_delta
from dmpo_app.backup.remotes.remote import Remote
from dmpo_app.backup.snapshots import prune, put_delta, put_snapshot, snapshot_name
from dmpo_app.backup.startup import Claim, forget_old_claims
from dmpo_app.errors import BackupUnreachableError
from dmpo_app.settings import BackupSettings
from dmpo_app.store.db.sqlite import DatabaseCopier, open_copy
from dmpo_app.store.store import DATABASE_NAME

log = logging.getLogger(__name__)

SCRATCH = "backup"
"""The folder of a home for the last copy and the next one; it may be deleted while no studio runs."""
_FILES_TOGETHER = 256
_MOST_DELTAS = 2000
_SMALL_BYTES = 16 << 20
"""A log or a delta of no more than this is cheap, however small the snapshot is."""


class BackupUploader:
    """Uploads one home under one claim. One thread at a time.

    Each snapshot starts a log of its own. After an upload that failed the next is a snapshot again: whether the storage
    took the delta cannot be known, and it may even turn up later under its name.
    """

    def __init__(
        self,
        home: Path,
        remote: Remote,
        claim: Claim,
        settings: BackupSettings,
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
        scratch: str = SCRATCH,
        most_deltas: int = _MOST_DELTAS,
    ) -> None:
        """Raises SetupError when the home has no database."""
        self._home, self._remote, self._claim, self._settings = home, remote, claim, settings
        self._now, self._clock, self._max_deltas = now, clock, most_deltas
        self._copier = DatabaseCopier(home / DATABASE_NAME)
        self._scratch = home / scratch
        self._scratch.mkdir(exist_ok=True)
        self._files = HomeFileScanner(home)
        self._uploaded_paths: set[str] | None = None
        self._deleted_since: dict[str, datetime] = {}
        self._snapshot, self._sha256 = "", ""
        self._num_snapshots = self._num_deltas = self._log_bytes = self._snapshot_bytes = 0
        self._snapshot_at = 0.0
        self._pending = True

    def upload_changes(self) -> bool:
        """Upload all that was committed before this call; False when there was nothing to do.

        Raises BackupUnreachableError, OSError when this machine's disk is full.
        """
        is_database_changed = self._pending or self._copier.has_changed
        if is_database_changed:
            self._pending = True
            self._copier.copy(self._scratch / "next.db")
        files = self._upload_files()
        if not is_database_changed:
            return files
        self._upload_database()
        self._pending = False
        return True

    def close(self) -> None:
        """Let go of the database and of the copies."""
        self._copier.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _upload_files(self) -> bool:
        here = self._files.list_paths()
        if self._uploaded_paths is None:
            self._uploaded_paths = {name.removeprefix(PREFIX) for name in self._remote.names(PREFIX)}
        new_paths = sorted(here - self._uploaded_paths)
        for start in range(0, len(new_paths), _FILES_TOGETHER):
            some = [path for path in new_paths[start : start + _FILES_TOGETHER] if (self._home / path).is_file()]
            self._remote.put([(PREFIX + path, self._home / path) for path in some])
            self._uploaded_paths.update(some)
            if len(new_paths) > _FILES_TOGETHER:
                log.info(
                    "backup: %d of %d new files stored", min(start + _FILES_TOGETHER, len(new_paths)), len(new_paths)
                )
        now = self._now()
        self._deleted_since = {path: self._deleted_since.get(path, now) for path in self._uploaded_paths - here}
        return bool(new_paths)

    def _upload_database(self) -> None:
        copy, last = self._scratch / "next.db", self._scratch / "last.db"
        due = self._clock() - self._snapshot_at >= self._settings.interval_seconds
        is_log_too_large = (
            self._log_bytes > max(self._snapshot_bytes, _SMALL_BYTES) or self._num_deltas >= self._max_deltas
        )
        if self._snapshot and not due and not is_log_too_large:
            head = compare(last, self._sha256, copy)
            if head.num_changed <= head.num_pages // 2 or head.num_changed * head.page_bytes <= _SMALL_BYTES:
                if head.after != self._sha256:
                    delta = self._scratch / "delta.gz"
                    write_delta(head, copy, delta)
                    self._upload_delta(delta)
                    self._sha256 = head.after
                copy.replace(last)
                return
        self._upload_snapshot(copy)
        copy.replace(last)

    def _upload_delta(self, delta: Path) -> None:
        snapshot, self._snapshot = self._snapshot, ""  # until it is known to be there
        put_delta(self._remote, snapshot, self._num_deltas + 1, delta)
        self._snapshot = snapshot
        self._num_deltas += 1
        self._log_bytes += delta.stat().st_size
        delta.unlink()

    def _upload_snapshot(self, copy: Path) -> None:
        self._snapshot = ""
        self._num_snapshots += 1
        name = snapshot_name(self._claim.generation, self._num_snapshots, self._now())
        with open_copy(copy) as connection:
            schema = str(_first(connection, "SELECT version_num FROM alembic_version"))
            votes = int(_first(connection, "SELECT count(*) FROM votes"))
        manifest = put_snapshot(self._remote, name, copy, self._scratch / "database.gz", schema=schema, votes=votes)
        self._snapshot, self._sha256, self._snapshot_bytes = name, manifest.sha256, manifest.packed_bytes
        self._num_deltas = self._log_bytes = 0
        self._snapshot_at = self._clock()
        log.info("backup: snapshot %s with %d votes, %.1f MB", name, votes, manifest.packed_bytes / 1e6)
        self._prune(copy)

    def _prune(self, copy: Path) -> None:
        """Remove old snapshots, then files that none of those left can need."""
        try:
            kept_snapshots = prune(
                self._remote,
                keep_snapshots=self._settings.keep_snapshots,
                keep_days=self._settings.keep_days,
                now=self._now(),
            )
            forget_old_claims(self._remote)
            with open_copy(copy) as connection:
                referenced_paths = {file.path for file in referenced_files(connection)}
            oldest = min((name[16:] for name in kept_snapshots), default="")
            unreferenced_paths = [
                path
                for path, since in self._deleted_since.items()
                if path not in referenced_paths and f"{since:%Y%m%dT%H%M%SZ}" < oldest
            ]
            self._remote.delete([PREFIX + path for path in unreferenced_paths])
            if self._uploaded_paths is not None:
                self._uploaded_paths -= set(unreferenced_paths)
        except BackupUnreachableError as error:
            log.warning("backup: old snapshots could not be removed: %s", error)


def _first(connection: Any, query: str) -> Any:
    return connection.execute(query).fetchone()[0]

"""Backup of a running studio: uploads in the background, and tells when votes must be refused.

Two threads: one uploads, one asks the storage every few seconds whether it is there and whether this studio's claim is
still in force. An upload that takes long is thus told from a storage that is gone.

A pass of the upload stores whatever the home has and its backup has not, files first, then the database: a database in
the backup never names a file that is not there. What changed is the difference of two copies of the database, so every
table is in it, whoever wrote; no vote is slowed down by it.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from dmpo_app.backup.home_files import PREFIX, HomeFileScanner, referenced_files
from dmpo_app.backup.remotes.remote import Remote
from dmpo_app.backup.snapshots import compare_copies, prune, put_delta, put_snapshot, snapshot_name, write_delta
from dmpo_app.backup.startup import Claim, forget_old_claims, is_superseded, release_claim
from dmpo_app.errors import BackupUnreachableError, StudioError
from dmpo_app.settings import BackupSettings
from dmpo_app.store.db.sqlite import DatabaseCopier, first_cell, open_copy, safe_driver
from dmpo_app.store.store import DATABASE_NAME

_log = logging.getLogger(__name__)

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
                _log.info(
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
            head = compare_copies(last, self._sha256, copy)
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
            schema = str(first_cell(connection, "SELECT version_num FROM alembic_version"))
            votes = int(first_cell(connection, "SELECT count(*) FROM votes"))
        manifest = put_snapshot(self._remote, name, copy, self._scratch / "database.gz", schema=schema, votes=votes)
        self._snapshot, self._sha256, self._snapshot_bytes = name, manifest.sha256, manifest.packed_bytes
        self._num_deltas = self._log_bytes = 0
        self._snapshot_at = self._clock()
        _log.info("backup: snapshot %s with %d votes, %.1f MB", name, votes, manifest.packed_bytes / 1e6)
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
            _log.warning("backup: old snapshots could not be removed: %s", error)


WATCH_SECONDS = 3.0
DURABLE_TIMEOUT_SECONDS = 15.0
"""Time limit of the wait; less than the page waits for a response."""
_GRACE_SECONDS = 1.0
"""Votes that were let in before the claim was lost are committed within this time."""

OUT_OF_REACH = (
    "The storage that keeps the votes is out of reach, so none are taken: they could be lost. It goes on by itself."
)
SUPERSEDED_MESSAGE = "Another studio has taken over from this one; it takes no more votes. Load the page again."


class Backup:
    """Durability by a remote storage, a `DurabilityPolicy`. `start` it, and `stop` it after the last vote."""

    def __init__(
        self,
        uploader: BackupUploader,
        remote: Remote,
        claim: Claim,
        settings: BackupSettings,
        *,
        watch_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uploader, self._remote, self._claim, self._settings = uploader, remote, claim, settings
        self._watch_seconds = watch_seconds or min(WATCH_SECONDS, settings.refuse_after_seconds / 4)
        self._clock = clock
        self._stopping, self._wake = threading.Event(), threading.Event()
        self._superseded = threading.Event()
        self._last_contact_at = clock()
        self._failing_since: float | None = None
        self._uploaded = threading.Condition()
        self._last_ticket = self._uploaded_ticket = 0
        self._threads = [
            threading.Thread(target=self._upload_until_stopped, name="backup", daemon=True),
            threading.Thread(target=self._watch_until_stopped, name="backup-watch", daemon=True),
        ]

    def start(self) -> None:
        """Start the threads: upload now and from now on."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Upload what is left and release the claim. What cannot be uploaded goes with the next start on this disk."""
        self._stopping.set()
        self._wake.set()
        for thread in self._threads:
            thread.join()
        self._uploader.close()

    @property
    def is_synchronous(self) -> bool:
        """True when votes are acknowledged once they are in the backup, and not before."""
        return self._settings.acknowledge != "disk"

    def check_writable(self) -> None:
        """Refuse writes while they might be lost later: raises BackupUnreachableError."""
        refusal = self.problem()
        if refusal is not None:
            raise BackupUnreachableError(refusal)

    def wait_until_durable(self) -> None:
        """Wait until what was committed before this call is in the backup, if votes are acknowledged by that.

        Raises BackupUnreachableError when it is not in time; the vote may be sent again.
        """
        if not self.is_synchronous:
            return
        with self._uploaded:
            self._last_ticket += 1
            ticket = self._last_ticket
            self._wake.set()
            if not self._uploaded.wait_for(lambda: self._uploaded_ticket >= ticket, timeout=DURABLE_TIMEOUT_SECONDS):
                raise BackupUnreachableError(self.problem() or OUT_OF_REACH)

    @property
    def lag_seconds(self) -> float:
        """Seconds since uploads began to fail; 0 while they succeed."""
        failing_since = self._failing_since
        return 0.0 if failing_since is None else self._clock() - failing_since

    def problem(self) -> str | None:
        """Reason why votes are refused; None while they are taken."""
        if self._superseded.is_set():
            return SUPERSEDED_MESSAGE
        max_seconds = self._settings.refuse_after_seconds
        failing_since = self._failing_since
        if self._clock() - self._last_contact_at > max_seconds:
            return OUT_OF_REACH
        if failing_since is not None and self._clock() - failing_since > max_seconds:
            return OUT_OF_REACH
        return None

    def _upload_until_stopped(self) -> None:
        pause = max(self._settings.log_seconds, self._remote.shortest_pause)
        while not self._stopping.is_set() and not self._superseded.is_set():
            self._upload_once()
            if self._failing_since is None:
                self._wake.wait(pause)
            else:
                self._stopping.wait(min(pause, self._watch_seconds))
            self._wake.clear()
        if not self._stopping.is_set():
            time.sleep(_GRACE_SECONDS)
        self._upload_once()
        self._release_claim()

    def _upload_once(self) -> None:
        with self._uploaded:
            ticket = self._last_ticket
        try:
            self._uploader.upload_changes()
        except (StudioError, OSError, safe_driver().Error) as error:
            if self._failing_since is None:
                self._failing_since = self._clock()
            _log.warning("backup: nothing could be stored: %s", error)
            return
        if self._failing_since is not None:
            _log.info("backup: the storage takes what is stored again")
        self._failing_since = None
        with self._uploaded:
            self._uploaded_ticket = ticket
            self._uploaded.notify_all()

    def _watch_until_stopped(self) -> None:
        while not self._stopping.wait(self._watch_seconds):
            try:
                superseded = is_superseded(self._remote, self._claim)
            except StudioError as error:
                _log.warning("backup: %s", error)
                continue
            self._last_contact_at = self._clock()
            if superseded:
                _log.error(
                    "backup: another studio has taken over at %s; this one takes no more votes", self._remote.url
                )
                self._superseded.set()
                self._wake.set()
                return

    def _release_claim(self) -> None:
        if self._failing_since is not None:
            _log.error("backup: the last changes are on this machine's disk only, not at %s", self._remote.url)
            return
        try:
            release_claim(self._remote, self._claim)
        except StudioError as error:
            _log.warning("backup: the next studio will have to wait for this one: %s", error)

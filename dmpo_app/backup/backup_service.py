"""Backup of a running studio: uploads in the background, and tells when votes must be refused.

Two threads: one uploads, one asks the storage every few seconds whether it is there and whether this studio's claim is
still in force. An upload that takes long is thus told from a storage that is gone.
"""

import logging
import threading
import time
from collections.abc import Callable

from dmpo_app.backup.remotes.remote import Remote
from dmpo_app.backup.startup import Claim, is_superseded, release
from dmpo_app.backup.uploader import BackupUploader
from dmpo_app.errors import BackupUnreachableError, StudioError
from dmpo_app.settings import BackupSettings
from dmpo_app.store.db.sqlite import safe_driver

log = logging.getLogger(__name__)

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
            log.warning("backup: nothing could be stored: %s", error)
            return
        if self._failing_since is not None:
            log.info("backup: the storage takes what is stored again")
        self._failing_since = None
        with self._uploaded:
            self._uploaded_ticket = ticket
            self._uploaded.notify_all()

    def _watch_until_stopped(self) -> None:
        while not self._stopping.wait(self._watch_seconds):
            try:
                superseded = is_superseded(self._remote, self._claim)
            except StudioError as error:
                log.warning("backup: %s", error)
                continue
            self._last_contact_at = self._clock()
            if superseded:
                log.error("backup: another studio has taken over at %s; this one takes no more votes", self._remote.url)
                self._superseded.set()
                self._wake.set()
                return

    def _release_claim(self) -> None:
        if self._failing_since is not None:
            log.error("backup: the last changes are on this machine's disk only, not at %s", self._remote.url)
            return
        try:
            release(self._remote, self._claim)
        except StudioError as error:
            log.warning("backup: the next studio will have to wait for this one: %s", error)

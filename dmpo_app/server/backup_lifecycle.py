"""The backup in the life of a server: claimed and restored before the studio opens, shipped to while it runs."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from dmpo_app.errors import BackupUnreachable, SetupProblem
from dmpo_app.settings import Settings
from dmpo_app.store.store import utc_now

if TYPE_CHECKING:
    from dmpo_app.backup.backup_service import Backup
    from dmpo_app.backup.claims import Claim
    from dmpo_app.backup.remotes.remote import Remote

log = logging.getLogger(__name__)

_RETRY_SECONDS = 2.0
_UNREACHED = (
    "The storage that keeps the votes is out of reach, so the studio does not open yet: what is said now could be lost."
)


class Claimed(NamedTuple):
    """A backup that this server may write to."""

    remote: Remote
    claim: Claim


def claimed(settings: Settings, stopping: threading.Event) -> Claimed | None:
    """Claim the backup and restore what this disk does not have; None without a backup, or when told to stop.

    While the storage is out of reach this waits, and the studio's address says so. Raises SetupProblem, BackupDamaged.
    """
    wanted = settings.backup
    if wanted.url is None:
        return None
    from dmpo_app.backup.remotes.remote import open_remote
    from dmpo_app.backup.startup import arrive
    from dmpo_app.server.waiting_page import WaitingPage

    remote = open_remote(wanted.url)
    if wanted.acknowledge == "remote" and remote.shortest_pause > 0:
        raise SetupProblem(
            f"votes cannot wait for {remote.url}, which takes a write every {remote.shortest_pause:g} s; set "
            "DMPO_BACKUP__ACKNOWLEDGE=disk, or use a bucket"
        )
    with WaitingPage(settings.host, settings.port) as page:

        def progress(words: str) -> None:
            log.info("backup: %s", words)
            page.say(f"The studio is coming back from its backup: {words}.")

        while not stopping.is_set():
            try:
                claim = arrive(
                    settings.home,
                    remote,
                    handover_seconds=wanted.handover_seconds,
                    now=utc_now,
                    on_progress=progress,
                )
            except BackupUnreachable as error:
                log.warning("the studio does not open yet: %s", error)
                page.say(_UNREACHED)
                stopping.wait(_RETRY_SECONDS)
            else:
                return Claimed(remote, claim)
    return None


def running_backup(settings: Settings, claimed: Claimed | None, stack: ExitStack) -> Backup | None:
    """Start shipping the open home; it is stopped with `stack`, after everything that was entered later."""
    if claimed is None:
        return None
    from dmpo_app.backup.backup_service import Backup
    from dmpo_app.backup.uploader import Shipper

    shipper = Shipper(settings.home, claimed.remote, claimed.claim, settings.backup, now=utc_now)
    backup = Backup(shipper, claimed.remote, claimed.claim, settings.backup)
    backup.start()
    stack.callback(backup.stop)
    return backup

"""Start-up of a home: opening its store, claiming its backup, restoring from it on an empty disk."""

import json
import logging
import secrets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from dmpo_app.backup.claims import Claim, make_claim, newest_claim, wait_for_release
from dmpo_app.backup.remotes.remote import Remote, open_remote
from dmpo_app.backup.restoring import restore
from dmpo_app.errors import SetupError
from dmpo_app.io import write_atomically
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.store.store import DATABASE_NAME


def open_store(settings: Settings) -> Store:
    """Open the home's store, to be closed by the caller.

    Raises like `Store.open`, and SetupError for a storage of files that no installed package understands.
    """
    remote_files = None if settings.files_url is None else open_remote(settings.files_url)
    return Store.open(settings.home, database_url=settings.database, remote=remote_files)


log = logging.getLogger(__name__)

OWNER_FILE = "backup.json"


def claim_and_restore(
    home: Path,
    remote: Remote,
    *,
    handover_seconds: float,
    now: Callable[[], datetime],
    on_progress: Callable[[str], None] = log.info,
) -> Claim:
    """Claim the backup, and restore it where the home has no database. Whoever calls holds the home.

    Raises SetupError when the home has a database and the backup is another home's, or was continued by one;
    BackupDamagedError, BackupUnreachableError.
    """
    owner = _read_or_create_owner_id(home)
    newest = newest_claim(remote)
    has_database = (home / DATABASE_NAME).is_file()
    if newest is not None and newest.owner != owner and has_database:
        raise SetupError(
            f"the backup at {remote.url} is another home's, or another studio went on with it since: the votes in "
            f"{home} are not all there are. Start with an empty home to go on from the backup (DMPO_HOME), or give "
            "this one a backup of its own (DMPO_BACKUP__URL)"
        )
    claim = make_claim(remote, owner, now())
    if newest is not None and newest.owner != owner:
        on_progress("waiting for the studio before this one to write its last changes")
        if not wait_for_release(remote, Claim(claim.generation - 1, ""), handover_seconds):
            log.warning("the studio before this one did not answer; it is taken to be gone")
    if not has_database:
        restore_result = restore(remote, home, on_progress=on_progress)
        if restore_result is not None:
            rebuilt = restore_result.rebuilt
            log.info(
                "restored %s with %d of %d logged changes: %d votes, %d files",
                rebuilt.manifest.name, rebuilt.num_deltas, rebuilt.num_logged, restore_result.votes,
                restore_result.num_files,
            )  # fmt: skip
            for fault in restore_result.faults:
                log.warning("%s", fault)
    return claim


def _read_or_create_owner_id(home: Path) -> str:
    """Read the owner id of this home, which claims carry; made on first use."""
    path = home / OWNER_FILE
    try:
        return str(json.loads(path.read_bytes())["owner"])
    except (OSError, ValueError, KeyError, TypeError):
        owner = secrets.token_hex(16)
        write_atomically(path, json.dumps({"owner": owner}).encode())
        return owner

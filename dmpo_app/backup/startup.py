"""Start-up of a home: opening its store, claiming its backup, restoring from it on an empty disk.

A backup is owned by numbered claims, of which the highest is in force. Two studios may be up at once: while a Space is
rebuilt the old one goes on serving. The newer makes a higher claim; the older sees it, takes no more votes, writes its
last changes and lets go; the newer waits for that and then restores. Names are made with `create`, so no two studios
hold one number.
"""

import json
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dmpo_app.backup.remotes import open_remote
from dmpo_app.backup.remotes.remote import Remote
from dmpo_app.backup.restoring import restore
from dmpo_app.errors import BackupUnreachableError, SetupError
from dmpo_app.io.files import write_atomically
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.store.home import require_local_disk
from dmpo_app.store.store import DATABASE_NAME

_log = logging.getLogger(__name__)

_CLAIM_PREFIX = "claims/"
_POLL_SECONDS = 0.5
_NUM_CLAIMS_KEPT = 10
OWNER_FILE = "backup.json"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim on a backup. `owner`: the id of the home that made it."""

    generation: int
    owner: str


def open_store(settings: Settings) -> Store:
    """Open the home's store, to be closed by the caller.

    Raises like `Store.open`, and SetupError for a storage of files that no installed package understands, and for a
    home with a SQLite database that is not on a local disk.
    """
    if settings.database is None:
        require_local_disk(settings.home, is_network_allowed=settings.allow_network_disk)
    remote_files = None if settings.files_url is None else open_remote(settings.files_url)
    return Store.open(
        settings.home,
        database_url=settings.database,
        remote=remote_files,
        is_database_adopted=settings.adopt_database,
    )


def claim_and_restore(
    home: Path,
    remote: Remote,
    *,
    handover_seconds: float,
    now: Callable[[], datetime],
    on_progress: Callable[[str], None] = _log.info,
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
            _log.warning("the studio before this one did not answer; it is taken to be gone")
    if not has_database:
        restore_result = restore(remote, home, on_progress=on_progress)
        if restore_result is not None:
            rebuilt = restore_result.rebuilt
            _log.info(
                "restored %s with %d of %d logged changes: %d votes, %d files",
                rebuilt.manifest.name, rebuilt.num_deltas, rebuilt.num_logged, restore_result.votes,
                restore_result.num_files,
            )  # fmt: skip
            for fault in restore_result.faults:
                _log.warning("%s", fault)
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


def newest_claim(remote: Remote) -> Claim | None:
    """The claim in force; None where nobody has made one. Raises BackupUnreachableError."""
    generations = _generations(remote)
    if not generations:
        return None
    try:
        owner = str(json.loads(remote.read(_claim_name(generations[-1])))["owner"])
    except (ValueError, KeyError, TypeError) as error:
        raise BackupUnreachableError(
            f"the newest claim at {remote.url} cannot be read: is it being written?"
        ) from error
    return Claim(generations[-1], owner)


def make_claim(remote: Remote, owner: str, at: datetime) -> Claim:
    """Make a claim higher than all others. Raises BackupUnreachableError."""
    while True:
        generation = max(_generations(remote), default=0) + 1
        content = json.dumps({"generation": generation, "owner": owner, "at": at.isoformat()})
        if remote.create(_claim_name(generation), content.encode()):
            return Claim(generation, owner)


def is_superseded(remote: Remote, claim: Claim) -> bool:
    """True when a higher claim was made.

    Raises BackupUnreachableError, also when the claim itself is no longer there.
    """
    generations = _generations(remote)
    if claim.generation not in generations:
        raise BackupUnreachableError(
            f"the claim of this studio is no longer at {remote.url}; was the backup deleted, or another storage put "
            "in its place?"
        )
    return generations[-1] > claim.generation


def release_claim(remote: Remote, claim: Claim) -> None:
    """Release a claim: its holder has written its last. Raises BackupUnreachableError."""
    remote.put([(_release_name(claim.generation), b"")])


def wait_for_release(
    remote: Remote, claim: Claim, seconds: float, *, sleep: Callable[[float], None] = time.sleep
) -> bool:
    """Wait until the holder of a claim has released it; False when it has not in time.

    Raises BackupUnreachableError.
    """
    deadline = time.monotonic() + seconds
    while _release_name(claim.generation) not in remote.names(_CLAIM_PREFIX):
        if time.monotonic() >= deadline:
            return False
        sleep(_POLL_SECONDS)
    return True


def forget_old_claims(remote: Remote) -> None:
    """Delete all claims but the newest few, which keep the numbers growing. Raises BackupUnreachableError."""
    old = set(_generations(remote)[:-_NUM_CLAIMS_KEPT])
    remote.delete([name for name in remote.names(_CLAIM_PREFIX) if _claim_number(name) in old])


def _generations(remote: Remote) -> list[int]:
    return sorted(_claim_number(name) for name in remote.names(_CLAIM_PREFIX) if name.endswith(".json"))


def _claim_number(name: str) -> int:
    digits = name.removeprefix(_CLAIM_PREFIX).split(".", 1)[0]
    return int(digits) if digits.isdigit() else 0


def _claim_name(generation: int) -> str:
    return f"{_CLAIM_PREFIX}{generation:08d}.json"


def _release_name(generation: int) -> str:
    return f"{_CLAIM_PREFIX}{generation:08d}.released"

"""Ownership of a backup: numbered claims, of which the highest is in force.

Two studios may be up at once: while a Space is rebuilt the old one goes on serving. The newer makes a higher claim; the
older sees it, takes no more votes, writes its last changes and lets go; the newer waits for that and then restores.
Names are made with `create`, so no two studios hold one number.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from dmpo_app.backup.remotes.remote import Remote
from dmpo_app.errors import BackupUnreachableError

_PREFIX = "claims/"
_POLL_SECONDS = 0.5
_NUM_CLAIMS_KEPT = 10


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim on a backup. `owner`: the id of the home that made it."""

    generation: int
    owner: str


def newest_claim(remote: Remote) -> Claim | None:
    """The claim in force; None where nobody has made one. Raises BackupUnreachableError."""
    generations = _generations(remote)
    if not generations:
        return None
    try:
        owner = str(json.loads(remote.read(_name(generations[-1])))["owner"])
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
        if remote.create(_name(generation), content.encode()):
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


def release(remote: Remote, claim: Claim) -> None:
    """Release a claim: its holder has written its last. Raises BackupUnreachableError."""
    remote.put([(_release_name(claim.generation), b"")])


def wait_for_release(
    remote: Remote, claim: Claim, seconds: float, *, sleep: Callable[[float], None] = time.sleep
) -> bool:
    """Wait until the holder of a claim has released it; False when it has not in time.

    Raises BackupUnreachableError.
    """
    deadline = time.monotonic() + seconds
    while _release_name(claim.generation) not in remote.names(_PREFIX):
        if time.monotonic() >= deadline:
            return False
        sleep(_POLL_SECONDS)
    return True


def forget_old_claims(remote: Remote) -> None:
    """Delete all claims but the newest few, which keep the numbers growing. Raises BackupUnreachableError."""
    old = set(_generations(remote)[:-_NUM_CLAIMS_KEPT])
    remote.delete([name for name in remote.names(_PREFIX) if _number(name) in old])


def _generations(remote: Remote) -> list[int]:
    return sorted(_number(name) for name in remote.names(_PREFIX) if name.endswith(".json"))


def _number(name: str) -> int:
    digits = name.removeprefix(_PREFIX).split(".", 1)[0]
    return int(digits) if digits.isdigit() else 0


def _name(generation: int) -> str:
    return f"{_PREFIX}{generation:08d}.json"


def _release_name(generation: int) -> str:
    return f"{_PREFIX}{generation:08d}.released"

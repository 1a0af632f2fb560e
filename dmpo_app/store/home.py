"""The home as a folder: its owner's alone, and on a disk that a SQLite database is safe on."""

import logging
import os
import re
import stat
from pathlib import Path

from dmpo_app.errors import SetupError
from dmpo_app.settings.mounts import network_file_system

_log = logging.getLogger(__name__)

_OPEN = stat.S_IRWXG | stat.S_IRWXO
_OWN_NAME = re.compile(
    r"adapters|backup\.json|backup(-elsewhere)?|cache|damaged|embeds|empty-prompts|images|imports|latents|lost\+found"
    r"|migrate\.lock|references|restoring|rounds|secret\.key|serve\.(json|lock)|studio\..*|tmp|tracking"
    r"|trainer\.log.*|verify-.*|\..*\.(tmp|old)"
)
"""Names that a studio gives to what it keeps in its home."""


def make_home(home: Path) -> None:
    """Make the folder of a home, for its owner alone; one that is open to others, as older versions left it, is closed.

    What belongs to another user stays as it is, and so does a folder that holds other things than a home. Where
    permissions cannot be set, as on FAT, a warning says so. Raises OSError when the folder cannot be made.
    """
    if not home.is_dir():
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=stat.S_IRWXU, exist_ok=True)
    if os.name == "nt" or not home.stat().st_mode & _OPEN:
        return
    names = sorted(path.name for path in home.iterdir())
    others = [name for name in names if not _OWN_NAME.fullmatch(name)]
    if others:
        _log.warning(
            "%s holds more than the studio's files (%s), so other users may look into it; the studio's own files are "
            "closed to them. Set DMPO_HOME to a folder of its own", home, ", ".join(others[:3])
        )  # fmt: skip
    elif not _close(home):
        _log.warning(
            "%s stays open to other users of this machine: it belongs to another user or its disk knows no "
            "permissions. Whoever can read it can read the votes and the key of all sessions", home
        )  # fmt: skip
        return
    num_closed = sum(_close_all(home / name) for name in names if name not in others)
    if num_closed or not others:
        _log.info("%s was open to other users of this machine; now it is its owner's alone", home)


def _close_all(path: Path) -> int:
    """Close a file, or a folder with what is in it; returns how many were open. Nobody reaches into a closed folder."""
    try:
        is_folder, is_open = path.is_dir(), bool(path.lstat().st_mode & _OPEN)
        if path.is_symlink() or not is_open or not _close(path):
            return 0
        return 1 + sum(map(_close_all, path.iterdir()) if is_folder else ())
    except OSError:  # it is gone by now: a file that another process had for a moment
        return 0


def _close(path: Path) -> bool:
    """Take the permissions of everybody else from a file or folder; False where that cannot be done."""
    try:
        found = path.stat()
        if found.st_uid != os.geteuid():
            return False
        path.chmod(stat.S_IMODE(found.st_mode) & ~_OPEN)
        return not path.stat().st_mode & _OPEN
    except PermissionError:
        return False


def require_local_disk(home: Path, *, is_network_allowed: bool) -> None:
    """Refuse a home with a SQLite database on a network or FUSE disk, or warn where that was allowed.

    Raises SetupError.
    """
    kind = network_file_system(home)
    if kind is None:
        return
    danger = (
        f"{home} is on a disk of the network or of another program ({kind}). SQLite cannot rely on the locks and the "
        "shared memory of such a disk: two processes may write at once, and the database with all votes be damaged"
    )
    if not is_network_allowed:
        raise SetupError(
            f"{danger}. Set DMPO_HOME to a local disk, and DMPO_BACKUP__URL to keep a copy on this one; or use "
            "PostgreSQL (DMPO_DATABASE_URL); or, at your own risk, set DMPO_ALLOW_NETWORK_DISK=true"
        )
    _log.warning("%s. DMPO_ALLOW_NETWORK_DISK is set; keep a backup elsewhere", danger)

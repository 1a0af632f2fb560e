"""The home as a folder: its owner's alone, on a disk that a SQLite database is safe on, and known to its database."""

import base64
import hashlib
import logging
import os
import re
import secrets
import socket
import stat
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Row, insert, inspect, select, update

from dmpo_app.errors import SetupError
from dmpo_app.io.files import create_exclusively
from dmpo_app.settings.mounts import network_file_system
from dmpo_app.store import schema
from dmpo_app.store.db.database import Database
from dmpo_app.store.db.postgresql import server_of

_log = logging.getLogger(__name__)

SECRET_KEY_NAME = "secret.key"
"""The home's key, by which tokens are sealed (`labeling.sign_in`); a backup keeps it with the database."""
_OPEN = stat.S_IRWXG | stat.S_IRWXO
_OWN_NAME = re.compile(
    r"adapters|backup\.json|backup(-elsewhere)?|cache|damaged|embeds|empty-prompts|images|imports|latents|lost\+found"
    r"|migrate\.lock|references|restoring|rounds|secret\.key|serve\.(json|lock)|start-errors\.log|studio\..*|tmp|tracking"
    r"|trainer\.log.*|trainer-stacks\.log|verify-.*|\..*\.(tmp|old)"
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
    for name in names:
        if name not in others:
            _close_all(home / name)
    if not others:
        _log.info("%s was open to other users of this machine; now it is its owner's alone", home)


def _close_all(path: Path) -> None:
    """Close a file, or a folder with what is in it. Nobody reaches into a folder that is closed already."""
    with suppress(FileNotFoundError):  # a file that another process had for a moment
        is_open = bool(path.lstat().st_mode & _OPEN)
        if is_open and not path.is_symlink() and _close(path) and path.is_dir():
            for entry in path.iterdir():
                _close_all(entry)


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


def read_secret_key(home: Path) -> bytes:
    """Read the home's key, made on first use and readable by its owner only. Two processes at once get the same.

    Raises StorageFullError.
    """
    path = home / SECRET_KEY_NAME
    if not path.exists():
        # Where another process was first its key stands.
        create_exclusively(path, base64.urlsafe_b64encode(secrets.token_bytes(32)), mode=0o600)
    return path.read_bytes().strip()


def place_of(home: Path) -> str:
    """Host and folder of a home, for people to read."""
    return f"{socket.gethostname()}:{home}"


_OWNER = select(schema.HomeRow.identity, schema.HomeRow.place, schema.HomeRow.claimed_at)


def _identity_of(home: Path) -> str:
    return hashlib.sha256(b"dmpo home:" + read_secret_key(home)).hexdigest()


def require_own_database(database: Database, home: Path, *, is_adopted: bool) -> None:
    """Refuse a PostgreSQL database of another home, whatever its schema: it is not for this one to bring up to date.

    Raises SetupError.
    """
    with database.reader() as connection:
        if not inspect(connection).has_table(schema.HomeRow.__tablename__):
            return
        owner = connection.execute(_OWNER).first()
        if owner is not None and owner.identity != _identity_of(home):
            _require_adoptable(connection, database, home, owner, is_adopted=is_adopted)


def _require_adoptable(
    connection: Connection, database: Database, home: Path, owner: Row[str, str, datetime], *, is_adopted: bool
) -> None:
    server = server_of(connection)
    if not is_adopted or server is not None:
        raise SetupError(_belongs_to_another(database, owner.place, owner.claimed_at, home, server))


def claim_database(database: Database, home: Path, *, is_adopted: bool, at: datetime) -> None:
    """Record in a PostgreSQL database that it belongs to a home; that it belongs to another is refused.

    A home is known by its key, so that it may move; a copy of it is the same home. `is_adopted`: the database is taken
    over, unless the other home is being served. Raises SetupError.
    """
    identity = _identity_of(home)
    present = {"identity": identity, "place": place_of(home)}

    def work(connection: Connection) -> None:
        owner = connection.execute(_OWNER).first()
        if owner is None:
            connection.execute(insert(schema.HomeRow).values(id=1, claimed_at=at, **present))
        elif owner.identity == identity:
            connection.execute(update(schema.HomeRow).values(**present))
        else:
            _require_adoptable(connection, database, home, owner, is_adopted=is_adopted)
            _log.warning(
                "%s takes over the database of %s; from now on unset DMPO_ADOPT_DATABASE", present["place"], owner.place
            )
            connection.execute(update(schema.HomeRow).values(claimed_at=at, **present))

    with database.reader() as connection:
        owner = connection.execute(_OWNER).first()
    if owner is None or (owner.identity, owner.place) != (identity, present["place"]):
        database.write(work)


def _belongs_to_another(database: Database, place: str, since: datetime, home: Path, server: str | None) -> str:
    advice = (
        f"It is being served ({server}): stop that one first"
        if server is not None
        else "If that home is lost, set DMPO_ADOPT_DATABASE=true for one start to take the database over, without the "
        "adapters and sessions of its old home"
    )
    return (
        f"the database {database.url.render_as_string()} belongs since {since:%Y-%m-%d} to the home {place}, and this "
        f"is {place_of(home)} with another {SECRET_KEY_NAME}. Two homes on one database contradict each other. Start "
        "with the first home or a copy of it (DMPO_HOME), or give this one a database of its own (DMPO_DATABASE_URL). "
        f"{advice}"
    )

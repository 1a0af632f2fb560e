"""SQLite: a safe library, pragmas, the begin of transactions, and the translation of its errors."""

import importlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from dmpo_app.errors import (
    BusyError,
    SetupError,
    StorageFullError,
    StudioError,
    SystemExhaustedError,
    UnsafeSQLiteError,
)
from dmpo_app.io.files import move_durably

SAFE_FROM = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""The first releases without the WAL-reset bug: two backports on their own branches, and the mainline."""

BUSY_TIMEOUT_MS = 15_000

PRAGMAS: tuple[tuple[str, str, str | int], ...] = (
    ("busy_timeout", str(BUSY_TIMEOUT_MS), BUSY_TIMEOUT_MS),
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("foreign_keys", "ON", 1),
    ("trusted_schema", "OFF", 0),
    ("cell_size_check", "ON", 1),
    ("journal_size_limit", "67108864", 67_108_864),
)
"""Name, value to set, value to read back. FULL: an acknowledged vote survives a power cut, not only a kill."""

_PRIMARY_CODE = 0xFF
_SQLITE_BUSY, _SQLITE_LOCKED, _SQLITE_NOMEM, _SQLITE_IOERR, _SQLITE_FULL, _SQLITE_CANTOPEN = 5, 6, 7, 10, 13, 14


def is_safe_version(version: tuple[int, ...]) -> bool:
    """True for a SQLite release without the WAL-reset bug, which corrupts a database under two connections.

    >= 3.51.3, or a backport: 3.50.7 and later in 3.50, 3.44.6 and later in 3.44.
    """
    backport_44, backport_50, mainline = SAFE_FROM
    if version >= mainline:
        return True
    return any(version[:2] == first[:2] and version >= first for first in (backport_44, backport_50))


@lru_cache(maxsize=1)
def safe_driver() -> ModuleType:
    """Load the SQLite library of this process: Python's own where it is safe, else the pysqlite3 wheel.

    Raises UnsafeSQLiteError when neither will do.
    """
    if is_safe_version(sqlite3.sqlite_version_info):
        return sqlite3
    try:
        wheel = importlib.import_module("pysqlite3.dbapi2")
    except ImportError:
        versions = f"Python's SQLite is {sqlite3.sqlite_version} and the pysqlite3 package is not installed"
    else:
        if is_safe_version(wheel.sqlite_version_info):
            return wheel
        versions = f"Python's SQLite is {sqlite3.sqlite_version} and pysqlite3's is {wheel.sqlite_version}"
    raise UnsafeSQLiteError(
        f"{versions}. Versions from 3.7.0 to 3.51.2 can corrupt a database that two processes use at once. "
        "Install a fixed one with `pip install 'pysqlite3>=0.6.1'`, or use a Python built with SQLite 3.51.3 or later."
    )


def sqlite_engine(url: URL, *, read_only: bool, pool_size: int, max_overflow: int) -> Engine:
    """Make an engine whose transactions write in turn, or read a consistent snapshot and cannot write.

    Raises UnsafeSQLiteError.
    """
    engine = create_engine(
        url,
        module=safe_driver(),
        # The driver must leave transactions to us: its own handling begins them late and ignores some pragmas.
        connect_args={"isolation_level": None, "check_same_thread": False},
        pool_size=pool_size,
        max_overflow=max_overflow,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        prepare_connection(connection, read_only=read_only)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def prepare_connection(connection: DBAPIConnection, *, read_only: bool) -> None:
    """Set the pragmas and read each back: SQLite ignores what it does not like without an error."""
    cursor = connection.cursor()
    pragmas = PRAGMAS + ((("query_only", "ON", 1),) if read_only else ())
    for name, value, expected in pragmas:
        cursor.execute(f"PRAGMA {name}={value}")
        cursor.execute(f"PRAGMA {name}")
        row = cursor.fetchone()
        if row is None or row[0] != expected:
            raise SetupError(
                f"SQLite refused PRAGMA {name}={value} (it says {row and row[0]!r}); "
                "is the home on a network disk, or was SQLite built without WAL?"
            )
    cursor.close()


def shrink_log(connection: DBAPIConnection) -> None:
    """Copy the write-ahead log into the database and truncate it, unless readers are in the way."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=200")  # a slow reader must not hold up the next vote for seconds
    try:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        cursor.fetchall()
    finally:
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        cursor.close()


def translate_result_code(extended_code: int, message: str) -> StudioError | None:
    """Translate an error by its result code; None for those that are faults of the program."""
    code = extended_code & _PRIMARY_CODE
    if code in (_SQLITE_CANTOPEN, _SQLITE_NOMEM):
        return SystemExhaustedError(
            f"The database could not be opened ({message}); nothing was recorded. Are too many files open, or is its "
            "disk out of reach? The studio goes on by itself."
        )
    if code in (_SQLITE_FULL, _SQLITE_IOERR):
        return StorageFullError(
            f"The database could not be used ({message}); nothing was recorded. Is the disk full? Free some space: "
            "the studio goes on by itself."
        )
    if code in (_SQLITE_BUSY, _SQLITE_LOCKED):
        return BusyError(
            f"Another process has held the database for {BUSY_TIMEOUT_MS // 1000} s ({message}); try again."
        )
    return None


class DatabaseCopier:
    """Copy one database file through SQLite itself. One thread at a time.

    Nothing but SQLite may open a live database: closing any other handle on it would drop SQLite's locks.
    """

    def __init__(self, path: Path) -> None:
        """Open the database. Raises SetupError when there is none at `path`."""
        driver = safe_driver()
        if not path.is_file():
            raise SetupError(f"there is no database at {path} to make a copy of")
        self._connection: Any = driver.connect(str(path), isolation_level=None, check_same_thread=False)
        self._connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        self._connection.execute("PRAGMA query_only=ON")
        self._copied_version: int | None = None

    @property
    def has_changed(self) -> bool:
        """True when anything was committed since the last copy, by whatever process."""
        return self._copied_version is None or self._data_version() != self._copied_version

    def copy(self, target: Path) -> None:
        """Write the database as it is now to `target`, which is replaced. The copy is a plain SQLite file."""
        for leftover in (target, *(target.with_name(target.name + ending) for ending in ("-wal", "-shm", "-journal"))):
            leftover.unlink(missing_ok=True)
        # Read before the copy: what is committed in between is copied now and once more later, never missed.
        version = self._data_version()
        copy: Any = safe_driver().connect(str(target), isolation_level=None)
        try:
            copy.execute("PRAGMA journal_mode=OFF")
            copy.execute("PRAGMA synchronous=OFF")
            # In one step: between two steps another process may write, and the copy would begin anew each time.
            self._connection.backup(copy, pages=-1)
        finally:
            copy.close()
        self._copied_version = version

    def close(self) -> None:
        """Close the database. Calling it again does nothing."""
        self._connection.close()

    def _data_version(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])


NUM_COPIES_KEPT = 2
_COPY_BEFORE = "studio.before-r{revision}.db"


def keep_copy(path: Path, revision: str) -> Path:
    """Keep a copy of a database beside it, before it is brought to a revision of the schema; returns the copy's path.

    Whole and durable, or not there at all; the newest two stay. Raises StorageFullError.
    """
    target = path.with_name(_COPY_BEFORE.format(revision=revision))
    temporary = target.with_name(f".{target.name}.tmp")
    copier = DatabaseCopier(path)
    try:
        copier.copy(temporary)
        temporary.chmod(0o600)
        move_durably(temporary, target)
    except (safe_driver().Error, StorageFullError) as error:
        raise StorageFullError(
            f"no copy of {path.name} could be kept in {path.parent} ({error}), and without one it is not brought to "
            f"schema {revision}. Nothing was changed. Make room for {path.stat().st_size / 1e6:.0f} MB and start again"
        ) from error
    finally:
        copier.close()
        temporary.unlink(missing_ok=True)
    copies = sorted(
        path.parent.glob(_COPY_BEFORE.format(revision="*")), key=lambda copy: (copy.stat().st_mtime, copy.name)
    )
    for old in copies[:-NUM_COPIES_KEPT]:
        old.unlink()
    return target


@contextmanager
def open_copy(path: Path) -> Iterator[Any]:
    """A read-only DBAPI connection to a copy that nobody writes to; it leaves no files beside it."""
    connection: Any = safe_driver().connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        yield connection
    finally:
        connection.close()


def first_cell(connection: Any, query: str) -> Any:
    """The first cell of a query's first row, on a DBAPI connection as `open_copy` gives it."""
    return connection.execute(query).fetchone()[0]

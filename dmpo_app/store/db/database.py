"""The database of a home: its engines, its writer, and its schema brought up to date.

A shared engine would have to choose how a transaction begins. `BEGIN IMMEDIATE` makes every read wait for the writer's
lock; a plain `BEGIN` lets two writers both read and then collide when they write. So each has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, Engine, inspect, make_url, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dmpo_app.errors import BusyError, SetupError
from dmpo_app.store.db.postgresql import postgresql_engine
from dmpo_app.store.db.sqlite import sqlite_engine
from dmpo_app.store.db.writer import QUEUE_SIZE, Writer, translate_error

HEAD = "0009"
"""The newest revision under migrations/versions."""

MIGRATIONS = Path(__file__).parents[1] / "migrations"


def current_revision(connection: Connection) -> str | None:
    """The schema revision of a database; None when it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def upgrade(connection: Connection) -> bool:
    """Upgrade to HEAD within the caller's transaction; False when there was nothing to do.

    Raises SetupError for a database newer than this version.
    """
    revision = current_revision(connection)
    if revision == HEAD:
        return False
    # Imported only when there is something to do: it would add a quarter of a second to every start.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    if revision is not None:
        try:
            ScriptDirectory.from_config(config).get_revision(revision)
        except CommandError as error:
            raise SetupError(
                f"this home was written by a newer version of DMPO Studio (schema {revision}, this version knows "
                f"{HEAD}); update the program, or set DMPO_HOME to another folder"
            ) from error
    command.upgrade(config, "head")
    return True


T = TypeVar("T")

MAX_READERS = 40
"""Read connections, as many as a web server's default thread pool has threads; each is held for milliseconds."""


def sqlite_url(path: Path) -> URL:
    """The URL of a database file."""
    return URL.create("sqlite+pysqlite", database=str(path))


class Database:
    """Transactions on one database, for any number of threads."""

    def __init__(self, write_engine: Engine, read_engine: Engine, *, queue_size: int) -> None:
        self._write_engine = write_engine
        self._read_engine = read_engine
        self._writer = Writer(write_engine, queue_size=queue_size)

    @classmethod
    def open(cls, url: URL | str, *, queue_size: int = QUEUE_SIZE) -> Database:
        """Connect to a SQLite file, which is created, or to a PostgreSQL database.

        Raises UnsafeSQLiteError, or SetupError when it cannot be used or is no database of ours.
        """
        database_url = make_url(url)
        if database_url.get_backend_name() not in ("sqlite", "postgresql"):
            raise SetupError(f"{database_url.render_as_string()} is not supported; expected postgresql:// or sqlite://")
        write_engine = _engine(database_url, read_only=False)
        try:
            with write_engine.connect():
                pass
        except DatabaseError as error:
            write_engine.dispose()
            raise SetupError(_connection_problem(database_url, error)) from error
        return cls(write_engine, _engine(database_url, read_only=True), queue_size=queue_size)

    @property
    def url(self) -> URL:
        """The address it was opened at, with the password if it has one."""
        return self._write_engine.url

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """Run `work` in a write transaction; the result arrives once it is on disk.

        Raises BusyError when the queue is full. The future raises what `work` raised; StorageFullError when the disk
        took no more; BusyError when another process would not let go of the database. In none of these cases is
        anything recorded.
        """
        return self._writer.submit(work)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a write transaction, and wait for its result."""
        return self._writer.submit(work).result()

    @contextmanager
    def reader(self) -> Iterator[Connection]:
        """A read-only transaction on a consistent snapshot. Keep it short."""
        try:
            with self._read_engine.connect() as connection:
                yield connection
        except PoolTimeout as error:
            raise BusyError(f"{MAX_READERS} readers are at work already; try again in a moment") from error
        except (DatabaseError, OverflowError, UnicodeEncodeError) as error:
            raise translate_error(error)  # noqa: B904 - it names its cause

    def close(self) -> None:
        """Finish queued writes and close the database. Calling it again does nothing."""
        self._writer.close()
        self._write_engine.dispose()
        self._read_engine.dispose()


def _engine(url: URL, *, read_only: bool) -> Engine:
    make_engine = sqlite_engine if _is_sqlite(url) else postgresql_engine
    if read_only:
        return make_engine(url, read_only=True, pool_size=8, max_overflow=MAX_READERS - 8)
    return make_engine(url, read_only=False, pool_size=1, max_overflow=0)


def _connection_problem(url: URL, error: DatabaseError) -> str:
    if _is_sqlite(url):
        return (
            f"{url.database} cannot be opened ({error.orig}); is the folder writable and the file a SQLite "
            "database? Set DMPO_HOME to another folder to start afresh."
        )
    return (
        f"{url.render_as_string()} cannot be reached ({error.orig}); is the server running, and are user, password and "
        "database in DMPO_DATABASE_URL right?"
    )


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"

"""PostgreSQL: its driver, the begin of transactions, and the translation of its errors.

Writers take turns here as they do with SQLite, by an advisory lock that a write transaction holds to its end. The store
rests on that: ids grow in the order of commits, and what a transaction has read nobody changes under it.
"""

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from dmpo_app.errors import BadInputError, BusyError, SetupError, StorageFullError, StudioError

LOCK_SECONDS = 15
"""A writer waits this long for the writers of other processes."""

_LOCK_KEY = 0x646D706F
"""The advisory lock of writers: any number that other programs on the same database do not happen to use."""
_CONNECT_SECONDS = 10

_FULL = ("53100", "53200", "58030")
_TOO_LARGE = "22003"
_BAD_VALUES = "22"
_LOST = ("08", "57P", "53300")
_WAITED = ("55P03", "40001", "40P01")


def postgresql_engine(url: URL, *, read_only: bool, pool_size: int, max_overflow: int) -> Engine:
    """Make an engine whose transactions write in turn, or read a consistent snapshot and cannot write.

    Raises SetupError for a URL that asks for another driver than psycopg.
    """
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise SetupError(
            f"{url.render_as_string()} asks for the driver {url.get_driver_name()}; expected postgresql+psycopg://"
        )
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True} if read_only else {}
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={"connect_timeout": _CONNECT_SECONDS, "application_name": "dmpo-studio"},
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_pre_ping=True,  # a server that was restarted closed them all
        execution_options=options,
    )
    if not read_only:

        @event.listens_for(engine, "connect")
        def prepare(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
            cursor = connection.cursor()
            cursor.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
            cursor.execute("SET synchronous_commit = on")  # an acknowledged vote survives a power cut
            cursor.close()
            connection.commit()

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")

    return engine


def translate_sqlstate(state: str | None, message: str) -> StudioError | None:
    """Translate an error by its SQLSTATE; None for those that are faults of the program.

    Without a state the connection itself failed.
    """
    if state in _FULL:
        return StorageFullError(
            f"The database could not be used ({message}); nothing was recorded. Is its disk full? Free some space: "
            "the studio goes on by itself."
        )
    if state == _TOO_LARGE:
        return BadInputError("a number is larger than any that is stored here")
    if state is not None and state.startswith(_BAD_VALUES):
        return BadInputError(f"a value cannot be stored ({message})")
    if state is None or state.startswith(_LOST):
        return BusyError(f"The database cannot be reached ({message}); try again in a moment.")
    if state in _WAITED:
        return BusyError(f"Another process has held the database for {LOCK_SECONDS} s ({message}); try again.")
    return None

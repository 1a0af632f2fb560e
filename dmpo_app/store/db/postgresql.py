"""PostgreSQL: its driver, the begin of transactions, and the translation of its errors.

Writers take turns here as they do with SQLite, by an advisory lock that a write transaction holds to its end. The store
rests on that: ids grow in the order of commits, and what a transaction has read nobody changes under it.
"""

import secrets
import time

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from dmpo_app.errors import BadInputError, BusyError, HomeLockedError, SetupError, StorageFullError, StudioError

LOCK_SECONDS = 15
"""A writer waits this long for the writers of other processes."""

_LOCK_KEY = 0x646D706F
"""The advisory lock of writers: any number that other programs on the same database do not happen to use."""
_SERVER_LOCK_KEY = _LOCK_KEY + 1
"""The advisory lock that a server holds as long as its writer is connected."""
_SERVER_LOCK_SECONDS = 3.0
"""The connection of a server that was stopped or killed this moment may take as long to end."""
_SERVER_LOCK_POLL_SECONDS = 0.2
_SERVER_LOCK_HOLDER = (
    "SELECT l.pid, a.application_name FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid "
    "WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 0 AND l.objsubid = 1 AND "
    f"l.objid = {_SERVER_LOCK_KEY} AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_KEEPALIVES = (("idle", 30), ("interval", 10), ("count", 3))
"""A server whose machine is gone is noticed after a minute, and its lock is free; by default that takes two hours."""
_MAX_APPLICATION_NAME = 63
_NAME_PREFIX = "dmpo-studio "
_TOKEN_END = len(_NAME_PREFIX) + 8
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


def hold_for_server(engine: Engine, place: str) -> None:
    """Take the lock of servers on every connection of a writer's engine, which has one at a time.

    Raises HomeLockedError, with the other server's place, when it cannot be had now; BusyError where a connection is
    made anew.
    """
    own_name = f"{_NAME_PREFIX}{secrets.token_hex(4)} {place}"[:_MAX_APPLICATION_NAME]

    @event.listens_for(engine, "connect")
    def hold(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        other = _take_server_lock(connection, own_name)
        if other is not None:
            raise BusyError(f"another studio serves this database by now: {other}")

    engine.dispose()
    try:
        with engine.connect():
            pass
    except BusyError as error:
        raise HomeLockedError(
            f"{str(error).replace(' by now', '')}; stop it, or give this one a database of its own (DMPO_DATABASE_URL)"
        ) from error


def _take_server_lock(connection: DBAPIConnection, own_name: str) -> str | None:
    """Take the lock of servers for as long as a connection lasts; returns the name of who holds it where that fails."""
    cursor = connection.cursor()
    cursor.execute("SELECT set_config('application_name', %s, false)", (own_name,))
    for name, value in _KEEPALIVES:
        cursor.execute(f"SET tcp_keepalives_{name} = {value}")
    deadline = time.monotonic() + _SERVER_LOCK_SECONDS
    while True:
        cursor.execute(f"SELECT pg_try_advisory_lock({_SERVER_LOCK_KEY})")
        row = cursor.fetchone()
        if row is not None and row[0]:
            connection.commit()
            return None
        cursor.execute(_SERVER_LOCK_HOLDER)
        holder = cursor.fetchone()
        connection.commit()
        if holder is not None and str(holder[1]).startswith(own_name[:_TOKEN_END]):
            # A connection of ours that the network lost. The rest of the name is the place, where PostgreSQL writes
            # letters of its own for those that are not ASCII.
            cursor.execute("SELECT pg_terminate_backend(%s)", (holder[0],))
        if time.monotonic() >= deadline:
            return "unknown" if holder is None else str(holder[1] or "a server of another user")
        time.sleep(_SERVER_LOCK_POLL_SECONDS)


def server_of(connection: Connection) -> str | None:
    """The name of the server that holds the database of a connection; None while none does."""
    row = connection.exec_driver_sql(_SERVER_LOCK_HOLDER).first()
    return None if row is None else str(row[1] or "a server of another user")


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

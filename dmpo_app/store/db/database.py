"""The database of a home: its engines, its one writer thread, and its schema brought up to date.

A shared engine would have to choose how a transaction begins. `BEGIN IMMEDIATE` makes every read wait for the writer's
lock; a plain `BEGIN` lets two writers both read and then collide when they write. So each has its own.

The writer takes batches in, makes one durable commit, gives results out. Committing costs a disk flush, so whatever
waits in the queue while one commit is flushed shares the next. Each piece of work has a savepoint of its own: one that
fails takes nothing of the others with it. Nobody is answered before the commit that carries their work is on disk.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import URL, Connection, Engine, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dmpo_app.errors import BadInputError, BusyError, SetupError, StorageFullError, StudioError, SystemExhaustedError
from dmpo_app.store.db import postgresql, sqlite
from dmpo_app.store.db.postgresql import postgresql_engine
from dmpo_app.store.db.sqlite import shrink_log, sqlite_engine

_log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_BATCH = 64
QUEUE_SIZE = 1024
IDLE_SECONDS = 30.0
"""After this long without work the log is folded into the database file."""
_FULL_SECONDS = 60.0
MAX_READERS = 40
"""Read connections, as many as a web server's default thread pool has threads; each is held for milliseconds."""

HEAD = "0013"
"""The newest revision under migrations/versions."""
MIGRATIONS = Path(__file__).parents[1] / "migrations"


class Database:
    """Transactions on one database, for any number of threads."""

    def __init__(self, write_engine: Engine, read_engine: Engine, *, queue_size: int) -> None:
        self._write_engine = write_engine
        self._read_engine = read_engine
        self._writer = Writer(write_engine, queue_size=queue_size)

    @classmethod
    def open(cls, url: URL | str, *, queue_size: int = QUEUE_SIZE) -> Self:
        """Connect to a SQLite file, which is created, or to a PostgreSQL database.

        Raises UnsafeSQLiteError, or SetupError when it cannot be used or is no database of ours.
        """
        database_url = parse_url(url)
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

    @property
    def num_waiting(self) -> int:
        """The number of writes that wait for their turn."""
        return self._writer.num_waiting

    @property
    def has_lately_failed(self) -> bool:
        """True when the disk took no more within the last minute, and nothing was committed since."""
        return self._writer.has_lately_failed

    def hold_for_server(self, place: str) -> None:
        """Hold a PostgreSQL database for one server, until it is closed; for a SQLite file its home's lock does that.

        `place`: its host and home, for the words of another one's error. Raises HomeLockedError. After a lost
        connection it is held anew, and writes raise BusyError where another server was quicker.
        """
        if not _is_sqlite(self.url):
            postgresql.hold_for_server(self._write_engine, place)

    def close(self) -> None:
        """Finish queued writes and close the database. Calling it again does nothing."""
        self._writer.close()
        self._write_engine.dispose()
        self._read_engine.dispose()


def parse_url(url: URL | str) -> URL:
    """Parse the address of a database. Raises SetupError, without the text: there may be a password in it."""
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:
        raise SetupError(
            "DMPO_DATABASE_URL is no address of a database; expected postgresql://user:password@host:port/name, with "
            "special characters in the password written as %xx"
        ) from error


def _engine(url: URL, *, read_only: bool) -> Engine:
    make_engine = sqlite_engine if _is_sqlite(url) else postgresql_engine
    if read_only:
        return make_engine(url, read_only=True, pool_size=8, max_overflow=MAX_READERS - 8)
    return make_engine(url, read_only=False, pool_size=1, max_overflow=0)


def _connection_problem(url: URL, error: DatabaseError) -> str:
    reason = " ".join(str(error.orig).split())  # psycopg's has lines
    if _is_sqlite(url):
        return (
            f"{url.database} cannot be opened ({reason}); is the folder writable and the file a SQLite "
            "database? Set DMPO_HOME to another folder to start afresh."
        )
    return (
        f"{url.render_as_string()} cannot be reached ({reason}); is the server running, and are user, password and "
        "database in DMPO_DATABASE_URL right?"
    )


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def translate_error(error: BaseException) -> BaseException:
    """Translate an error of the database or its driver to the studio's own, with it as cause; others stay.

    StorageFullError and BusyError for a failing disk and a locked database; BadInputError for values that no column
    can hold.
    """
    studio_error: StudioError | None = None
    if isinstance(error, DBAPIError):
        studio_error = _as_studio_error(error)
    elif isinstance(error, OverflowError):
        studio_error = BadInputError("a number is larger than any that is stored here")
    elif isinstance(error, UnicodeEncodeError):
        studio_error = BadInputError("a text holds half a character (a lone surrogate)")
    if studio_error is None:
        return error
    studio_error.__cause__ = error
    return studio_error


def breaks_transaction(error: BaseException) -> bool:
    """True for an error that aborts the whole transaction, not only the statement that met it."""
    return isinstance(error, DBAPIError) and isinstance(
        _as_studio_error(error), StorageFullError | BusyError | SystemExhaustedError
    )


def _as_studio_error(error: DBAPIError) -> StudioError | None:
    message = str(error.orig)
    code = getattr(error.orig, "sqlite_errorcode", None)
    if isinstance(code, int):
        return sqlite.translate_result_code(code, message)
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(state, str) or isinstance(error, OperationalError):
        return postgresql.translate_sqlstate(state, message)
    return None


@dataclass(slots=True)
class _WriteJob:
    work: Callable[[Connection], Any]
    future: Future[Any]


class _TransactionLostError(Exception):
    """The database gave up the whole transaction; its cause says why."""


class Writer:
    """Run callables in transactions on one connection, in the order they were submitted."""

    def __init__(self, engine: Engine, *, queue_size: int = QUEUE_SIZE) -> None:
        self._engine = engine
        self._queue: queue.Queue[_WriteJob | None] = queue.Queue(maxsize=queue_size)
        self._submit_lock = threading.Lock()
        self._closed = False
        self._full_until = 0.0
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """The number of jobs in the queue."""
        return self._queue.qsize()

    @property
    def has_lately_failed(self) -> bool:
        """True when the disk took no more within the last minute, and nothing was committed since."""
        return time.monotonic() < self._full_until

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """Queue `work`; its result arrives after the commit. Raises BusyError when the queue is full."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # once queued it will run: a cancel could not be honoured
        with self._submit_lock:
            if self._closed:
                raise RuntimeError("the store is closed")
            try:
                self._queue.put_nowait(_WriteJob(work, future))
            except queue.Full:
                raise BusyError(f"{self._queue.maxsize} writes are waiting already; try again in a moment") from None
        return future

    def close(self) -> None:
        """Finish queued writes, then stop. Calling it again does nothing."""
        with self._submit_lock:
            if self._closed:
                return
            self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        dirty = False
        while True:
            batch, last = self._next_batch()
            if batch:
                self._commit(batch)
                dirty = True
            elif dirty and not last:
                self._fold_log()
                dirty = False
            if last:
                return

    def _next_batch(self) -> tuple[list[_WriteJob], bool]:
        """Get up to MAX_BATCH waiting jobs, none after a quiet spell; and whether this is the end."""
        batch: list[_WriteJob] = []
        try:
            job = self._queue.get(timeout=IDLE_SECONDS)
            while job is not None:
                batch.append(job)
                if len(batch) == MAX_BATCH:
                    return batch, False
                job = self._queue.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _commit(self, batch: list[_WriteJob]) -> None:
        outcomes: list[tuple[_WriteJob, Any, BaseException | None]] = []
        try:
            with self._engine.begin() as connection:
                for job in batch:
                    outcomes.append((job, *_run_in_savepoint(connection, job)))
        except BaseException as error:  # noqa: BLE001 - handed to everyone who waits for this batch
            self._fail(
                batch, error.__cause__ if isinstance(error, _TransactionLostError) and error.__cause__ else error
            )
            return
        self._full_until = 0.0
        for job, result, problem in outcomes:
            if problem is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(problem)

    def _fail(self, batch: list[_WriteJob], error: BaseException) -> None:
        _log.error("a batch of %d writes was not recorded: %s", len(batch), error)
        self._engine.dispose()  # the connection may be unusable; the next batch opens a fresh one
        if isinstance(translate_error(error), StorageFullError):
            self._full_until = time.monotonic() + _FULL_SECONDS
        for job in batch:
            job.future.set_exception(translate_error(error))

    def _fold_log(self) -> None:
        if self._engine.dialect.name != "sqlite":
            return
        try:
            with self._engine.connect() as connection:
                shrink_log(connection.connection)
        except Exception as error:  # noqa: BLE001 - mere tidying: whatever is wrong, this thread must go on
            _log.warning("the write-ahead log could not be folded in: %s", error)


def _run_in_savepoint(connection: Connection, job: _WriteJob) -> tuple[Any, BaseException | None]:
    connection.exec_driver_sql("SAVEPOINT job")
    try:
        result = job.work(connection)
    except BaseException as error:
        if breaks_transaction(error):
            raise _TransactionLostError from error
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT job")
        connection.exec_driver_sql("RELEASE SAVEPOINT job")
        return None, translate_error(error)
    connection.exec_driver_sql("RELEASE SAVEPOINT job")
    return result, None


def current_revision(connection: Connection) -> str | None:
    """The schema revision of a database; None when it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def upgrade(connection: Connection) -> bool:
    """Upgrade to HEAD within the caller's transaction; False when there was nothing to do.

    Of a SQLite file a copy is kept before. Raises SetupError for a database newer than this version, StorageFullError
    when there is no room for the copy; then nothing has changed.
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
        _keep_way_back(connection, revision)
    command.upgrade(config, "head")
    return True


def _keep_way_back(connection: Connection, revision: str) -> None:
    """Keep a copy of a SQLite file; of PostgreSQL say that it is being changed, since its copies are not ours to make.

    In the transaction that will change the schema: what another process wrote before is in the copy, and it writes
    nothing until the schema is new.
    """
    if _is_sqlite(connection.engine.url):
        copy = sqlite.keep_copy(Path(str(connection.engine.url.database)), HEAD)
        _log.info("the database is brought from schema %s to %s; as it was it is kept in %s", revision, HEAD, copy)
    else:
        _log.info("the database is brought from schema %s to %s; pg_dump keeps copies of it", revision, HEAD)


def sqlite_url(path: Path) -> URL:
    """The URL of a database file."""
    return URL.create("sqlite+pysqlite", database=str(path))

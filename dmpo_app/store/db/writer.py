"""The writer thread of a process: batches in, one durable commit, results out.

Committing costs a disk flush, so whatever waits in the queue while one commit is flushed shares the next. Each piece
of work has a savepoint of its own: one that fails takes nothing of the others with it. Nobody is answered before the
commit that carries their work is on disk.
"""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from dmpo_app.errors import BadInputError, BusyError, StorageFullError, StudioError
from dmpo_app.store.db import postgresql, sqlite
from dmpo_app.store.db.sqlite import shrink_log


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
    return isinstance(error, DBAPIError) and isinstance(_as_studio_error(error), StorageFullError | BusyError)


def _as_studio_error(error: DBAPIError) -> StudioError | None:
    message = str(error.orig)
    code = getattr(error.orig, "sqlite_errorcode", None)
    if isinstance(code, int):
        return sqlite.translate_result_code(code, message)
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(state, str) or isinstance(error, OperationalError):
        return postgresql.translate_sqlstate(state, message)
    return None


log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_BATCH = 64
QUEUE_SIZE = 1024
IDLE_SECONDS = 30.0
"""After this long without work the log is folded into the database file."""


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
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

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
        for job, result, problem in outcomes:
            if problem is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(problem)

    def _fail(self, batch: list[_WriteJob], error: BaseException) -> None:
        log.error("a batch of %d writes was not recorded: %s", len(batch), error)
        self._engine.dispose()  # the connection may be unusable; the next batch opens a fresh one
        for job in batch:
            job.future.set_exception(translate_error(error))

    def _fold_log(self) -> None:
        if self._engine.dialect.name != "sqlite":
            return
        try:
            with self._engine.connect() as connection:
                shrink_log(connection.connection)
        except Exception as error:  # noqa: BLE001 - mere tidying: whatever is wrong, this thread must go on
            log.warning("the write-ahead log could not be folded in: %s", error)


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

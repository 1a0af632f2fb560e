import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from dmpo_app.errors import BusyError
from dmpo_app.store.db.database import Database, sqlite_url
from dmpo_app.store.db.sqlite import safe_driver
from tests.patience import PATIENCE, wait_until


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(sqlite_url(tmp_path / "small.db"), queue_size=8)
    opened.write(lambda connection: connection.execute(text("CREATE TABLE parents (id INTEGER PRIMARY KEY)")))
    opened.write(
        lambda connection: connection.execute(
            text("CREATE TABLE children (parent INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)")
        )
    )
    yield opened
    opened.close()


def insert_parent(number: int) -> Callable[[Connection], int]:
    def work(connection: Connection) -> int:
        connection.execute(text("INSERT INTO parents VALUES (:number)"), {"number": number})
        return number

    return work


def parents(database: Database) -> list[int]:
    with database.reader() as connection:
        return list(connection.execute(text("SELECT id FROM parents ORDER BY id")).scalars())


class Hold:
    """Work that keeps the writer thread busy until released, so that what follows shares one batch."""

    def __init__(self, database: Database) -> None:
        self._go, self._begun = threading.Event(), threading.Event()
        self.future: Future[bool] = database.submit(self._wait)
        assert self._begun.wait(PATIENCE)

    def _wait(self, connection: Connection) -> bool:
        self._begun.set()
        return self._go.wait(PATIENCE)

    def release(self) -> None:
        self._go.set()


def test_work_that_fails_takes_nothing_of_its_batch_with_it(database: Database) -> None:
    hold = Hold(database)
    first, twice, last = (database.submit(insert_parent(number)) for number in (1, 1, 2))
    hold.release()
    assert first.result() == 1
    assert last.result() == 2
    with pytest.raises(IntegrityError):
        twice.result()
    assert parents(database) == [1, 2]


def test_a_half_done_piece_of_work_is_undone_whole(database: Database) -> None:
    def work(connection: Connection) -> None:
        insert_parent(5)(connection)
        raise LookupError("changed my mind")

    with pytest.raises(LookupError, match="changed my mind"):
        database.write(work)
    assert parents(database) == []


def test_a_commit_that_fails_fails_everybody_in_the_batch(database: Database) -> None:
    hold = Hold(database)
    good = database.submit(insert_parent(1))
    orphan = database.submit(lambda connection: connection.execute(text("INSERT INTO children VALUES (99)")))
    hold.release()
    for future in (good, orphan):
        with pytest.raises(IntegrityError, match="FOREIGN KEY"):
            future.result()
    assert parents(database) == []
    assert database.write(insert_parent(1)) == 1, "and the writer goes on"


def test_an_answer_comes_after_the_commit(database: Database) -> None:
    seen: list[list[int]] = []
    future = database.submit(insert_parent(3))
    future.add_done_callback(lambda _: seen.append(parents(database)))  # on another connection
    future.result()
    wait_until(lambda: seen, "the answer is told")
    assert seen == [[3]]


def test_a_full_queue_is_busy_and_nothing_that_was_queued_is_lost(database: Database) -> None:
    hold = Hold(database)
    queued = [database.submit(insert_parent(number)) for number in range(8)]
    with pytest.raises(BusyError, match="8 writes are waiting"):
        database.submit(insert_parent(100))
    hold.release()
    assert [future.result() for future in queued] == list(range(8))
    assert database.write(insert_parent(100)) == 100


def test_a_database_that_another_process_will_not_let_go_of_is_busy(database: Database, tmp_path: Path) -> None:
    database.write(lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout=50").scalar())  # not 15 s
    other = safe_driver().connect(tmp_path / "small.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BusyError, match="Another process"):
        database.write(insert_parent(1))
    other.execute("ROLLBACK")
    other.close()
    assert database.write(insert_parent(1)) == 1


def test_closing_finishes_what_is_queued_and_refuses_the_rest(database: Database) -> None:
    hold = Hold(database)
    queued = [database.submit(insert_parent(number)) for number in range(5)]
    closer = threading.Thread(target=database.close)
    closer.start()
    hold.release()
    closer.join(PATIENCE)
    assert [future.result(timeout=0) for future in queued] == list(range(5))
    with pytest.raises(RuntimeError, match="closed"):
        database.submit(insert_parent(6))
    database.close()


def test_more_work_than_one_batch_takes_is_all_done(tmp_path: Path) -> None:
    wide = Database.open(sqlite_url(tmp_path / "wide.db"))
    wide.write(lambda connection: connection.execute(text("CREATE TABLE parents (id INTEGER PRIMARY KEY)")))
    hold = Hold(wide)
    queued = [wide.submit(insert_parent(number)) for number in range(150)]
    hold.release()
    assert [future.result() for future in queued] == list(range(150))
    assert parents(wide) == list(range(150))
    wide.close()


def test_a_quiet_writer_folds_the_log_into_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmpo_app.store.db.database.IDLE_SECONDS", 0.05)
    database = Database.open(sqlite_url(tmp_path / "quiet.db"))
    database.write(lambda connection: connection.execute(text("CREATE TABLE parents (id INTEGER PRIMARY KEY)")))
    log = tmp_path / "quiet.db-wal"
    wait_until(lambda: log.stat().st_size == 0, "the log is folded in")
    assert database.write(insert_parent(1)) == 1
    assert database.write(lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout").scalar()) == 15_000
    database.close()

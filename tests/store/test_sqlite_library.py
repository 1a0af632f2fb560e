import sqlite3
import sys

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from dmpo_app.domain.vote import Choice
from dmpo_app.errors import BadInputError, SetupError, UnsafeSQLiteError
from dmpo_app.store import Store
from dmpo_app.store.db.database import Database
from dmpo_app.store.db.sqlite import PRAGMAS, is_safe_version, safe_driver
from tests.store.store_fixtures import sqlite_only

pytestmark = sqlite_only


@pytest.mark.parametrize("version", [(3, 44, 6), (3, 44, 9), (3, 50, 7), (3, 51, 3), (3, 53, 4), (4, 0, 0)])
def test_releases_with_the_fix_are_safe(version: tuple[int, ...]) -> None:
    assert is_safe_version(version)


@pytest.mark.parametrize("version", [(3, 40, 1), (3, 44, 5), (3, 45, 0), (3, 50, 6), (3, 51, 0), (3, 51, 2)])
def test_releases_with_the_wal_reset_bug_are_not(version: tuple[int, ...]) -> None:
    assert not is_safe_version(version)


def test_the_library_in_use_here_is_a_safe_one() -> None:
    assert is_safe_version(safe_driver().sqlite_version_info)


def test_python_s_own_library_comes_first_where_it_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
    safe_driver.cache_clear()
    try:
        assert safe_driver() is sqlite3
    finally:
        safe_driver.cache_clear()


def test_without_a_safe_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 2))
    monkeypatch.setitem(sys.modules, "pysqlite3.dbapi2", None)  # as if it were not installed
    safe_driver.cache_clear()
    try:
        with pytest.raises(UnsafeSQLiteError, match="pip install 'pysqlite3"):
            safe_driver()
    finally:
        safe_driver.cache_clear()


def test_every_connection_has_the_pragmas_that_durability_rests_on(store: Store) -> None:
    def values(connection: Connection) -> list[object]:
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name, _, _ in PRAGMAS]

    expected = [value for _, _, value in PRAGMAS]
    assert store.database.write(values) == expected
    with store.database.reader() as connection:
        assert values(connection) == expected


def test_a_reader_cannot_write(store: Store) -> None:
    with store.database.reader() as connection, pytest.raises(OperationalError, match="readonly"):
        connection.execute(text("DELETE FROM prompts"))
    with pytest.raises(OperationalError, match="readonly"):
        store.read("DELETE FROM prompts")


def test_a_reader_sees_one_moment(store: Store) -> None:
    with store.database.reader() as connection:
        before = connection.execute(text("SELECT count(*) FROM prompts")).scalar_one()
        store.prompts.ensure(["new"], held_out=False)
        assert connection.execute(text("SELECT count(*) FROM prompts")).scalar_one() == before == 0
    assert len(store.prompts.list()) == 1


def test_values_that_no_column_can_hold_are_bad_input(store: Store) -> None:
    with pytest.raises(BadInputError, match="larger"):
        store.votes.undo(2**63, 1)
    with pytest.raises(BadInputError, match="larger"):
        store.images.get(2**63)
    with pytest.raises(BadInputError, match="half a character"):
        store.votes.record("\ud800", 1, Choice.LEFT, 1)
    with pytest.raises(BadInputError, match="half a character"):
        store.assignments.get("\ud800")


def test_databases_of_other_kinds_are_refused() -> None:
    with pytest.raises(SetupError, match="expected postgresql:// or sqlite://"):
        Database.open("mysql://somebody:secret@localhost/studio")

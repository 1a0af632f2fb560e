"""A copy of the database is kept before its schema is changed, and the way back is by it."""

import logging
import shutil
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from dmpo_app.errors import StorageFullError
from dmpo_app.store import Store
from dmpo_app.store.db.database import HEAD, MIGRATIONS
from dmpo_app.store.db.sqlite import first_cell, open_copy, safe_driver
from tests.store.store_data import make_home
from tests.store.store_fixtures import sqlite_only
from tests.store.test_disk_full import small_disk

pytestmark = sqlite_only
COPY = f"studio.before-r{HEAD}.db"


def bring_to(home: Path, revision: str) -> None:
    engine = create_engine(f"sqlite+pysqlite:///{home / 'studio.db'}", module=safe_driver())
    with engine.begin() as opened:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = opened
        command.downgrade(config, revision)
    engine.dispose()


def schema_of(database: Path) -> str:
    with open_copy(database) as connection:
        assert first_cell(connection, "PRAGMA integrity_check") == "ok"
        return str(first_cell(connection, "SELECT version_num FROM alembic_version"))


@pytest.fixture
def old_home(tmp_path: Path) -> Path:
    """A home with an annotator, of an older schema."""
    make_home(tmp_path / "home")
    with Store.open(tmp_path / "home") as store:
        store.annotators.ensure("anna")
    bring_to(tmp_path / "home", "0008")
    return tmp_path / "home"


def test_a_home_that_is_new_or_up_to_date_keeps_no_copy(tmp_path: Path) -> None:
    for _ in range(2):
        Store.open(tmp_path / "home").close()
    assert list((tmp_path / "home").glob("studio.before*")) == []


def test_the_copy_is_the_database_as_it_was_and_can_be_gone_back_to(
    old_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "dmpo_app"):
        Store.open(old_home).close()
    copy = old_home / COPY
    assert f"from schema 0008 to {HEAD}; as it was it is kept in {copy}" in caplog.text
    assert copy.stat().st_mode & 0o777 == 0o600
    assert schema_of(copy) == "0008"
    with Store.open(old_home) as store:
        store.annotators.ensure("ben, of whom the copy knows nothing")
    for path in old_home.glob("studio.db*"):
        path.unlink()
    copy.rename(old_home / "studio.db")
    assert schema_of(old_home / "studio.db") == "0008", "the older version starts here"
    with Store.open(old_home) as store:
        assert [row.handle for row in store.read("SELECT handle FROM annotators")] == ["anna"]


def test_the_newest_two_copies_stay(old_home: Path) -> None:
    for number in range(3):
        (old_home / f"studio.before-r000{number}.db").touch()
    Store.open(old_home).close()
    bring_to(old_home, "0007")
    Store.open(old_home).close()
    assert sorted(path.name for path in old_home.glob("studio.before*")) == ["studio.before-r0002.db", COPY]
    assert schema_of(old_home / COPY) == "0007"
    assert [path.name for path in old_home.iterdir() if path.name.endswith(".tmp")] == []


def test_without_room_for_the_copy_nothing_is_changed(old_home: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk"):
        home, ballast = tmp_path / "disk" / "home", tmp_path / "disk" / "ballast"
        if old_home.stat().st_dev == home.parent.stat().st_dev:
            pytest.skip("a small disk cannot be mounted here")
        shutil.copytree(old_home, home)
        ballast.write_bytes(bytes(shutil.disk_usage(home).free - 250_000))  # enough for the log, not for the copy
        with pytest.raises(StorageFullError, match=r"no copy of studio\.db could be kept.*Nothing was changed\. Make"):
            Store.open(home)
        assert list(home.glob("*studio.before*")) == []
        ballast.unlink()
        Store.open(home).close()
        assert schema_of(home / COPY) == "0008"

"""A fresh store and a clock, for the conftest files of the folders that test on one.

`DMPO_TEST_DATABASE=postgresql` runs the same tests on a real PostgreSQL server.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dmpo_app.domain.vote import Annotator
from dmpo_app.store import Store
from tests.postgres_server import PostgresServer, running_server
from tests.store.store_data import Clock, broken_counts, make_home

ON_POSTGRESQL = os.environ.get("DMPO_TEST_DATABASE") == "postgresql"

sqlite_only = pytest.mark.skipif(ON_POSTGRESQL, reason="about SQLite alone")


def _url_of(store: Store) -> str | None:
    url = store.database.url
    return url.render_as_string(hide_password=False) if ON_POSTGRESQL else None


def reopened(store: Store) -> Store:
    """The same home, opened once more."""
    return Store.open(store.home, database_url=_url_of(store))


class EmptyHomes:
    """Homes at the present schema, copied from one: migrating each would take most of the time."""

    def __init__(self, template: Path, server: PostgresServer | None) -> None:
        self._template = template
        self._server = server
        if server is None:
            make_home(template)
        else:
            self._database = server.create_database()
            Store.open(template, database_url=server.url(self._database)).close()

    def copy(self, folder: Path) -> tuple[Path, str | None]:
        """A copy at `folder`, and the URL of its database where that is not in it."""
        home = shutil.copytree(self._template, folder)
        if self._server is None:
            return home, None
        return home, self._server.url(self._server.create_database(self._database))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def empty_homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmptyHomes]:
    with ExitStack() as stack:
        server = stack.enter_context(running_server()) if ON_POSTGRESQL else None
        yield EmptyHomes(tmp_path_factory.mktemp("store") / "home", server)


@pytest.fixture
def store(tmp_path: Path, empty_homes: EmptyHomes, clock: Clock) -> Iterator[Store]:
    """A fresh store; whatever a test did to it, its counts must be right in the end."""
    home, database_url = empty_homes.copy(tmp_path / "home")
    with Store.open(home, database_url=database_url, now=clock) as opened:
        yield opened
        assert broken_counts(opened) == 0


@pytest.fixture
def anna(store: Store) -> Annotator:
    return store.annotators.ensure("anna")


@pytest.fixture
def ben(store: Store) -> Annotator:
    return store.annotators.ensure("ben")

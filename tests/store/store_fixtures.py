"""A fresh store and a clock, for the conftest files of the folders that test on one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmpo_app.store import Store
from tests.store.store_data import Clock, broken_counts, make_home


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("store") / "home")


@pytest.fixture
def store(tmp_path: Path, empty_home: Path, clock: Clock) -> Iterator[Store]:
    """A fresh store; whatever a test did to it, its counts must be right in the end."""
    with Store.open(shutil.copytree(empty_home, tmp_path / "home"), now=clock) as opened:
        yield opened
        assert broken_counts(opened) == 0

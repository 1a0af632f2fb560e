from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmpo_app.domain import Annotator, BaseModelRef
from dmpo_app.store import Store
from tests.store.store_data import FINGERPRINT, Clock, broken_counts, make_home


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


@pytest.fixture
def base(store: Store) -> BaseModelRef:
    return store.models.register("pocket", "stable-diffusion", FINGERPRINT)


@pytest.fixture
def anna(store: Store) -> Annotator:
    return store.annotators.ensure("anna")


@pytest.fixture
def ben(store: Store) -> Annotator:
    return store.annotators.ensure("ben")

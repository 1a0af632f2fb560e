from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dmpo_app.domain import Annotator, BaseModelRef
from dmpo_app.store import Store
from tests.store.store_data import FINGERPRINT, Clock, broken_counts


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    """A fresh store; whatever a test did to it, its counts must be right in the end."""
    with Store.open(tmp_path / "home", now=clock) as opened:
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

import pytest

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Annotator
from dmpo_app.store import Store
from tests.store.store_data import FINGERPRINT
from tests.store.store_fixtures import clock, empty_homes, store

__all__ = ["clock", "empty_homes", "store"]


@pytest.fixture
def base(store: Store) -> BaseModelRef:
    return store.models.register("pocket", "stable-diffusion", FINGERPRINT)


@pytest.fixture
def anna(store: Store) -> Annotator:
    return store.annotators.ensure("anna")


@pytest.fixture
def ben(store: Store) -> Annotator:
    return store.annotators.ensure("ben")

import pytest

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.store import Store
from tests.judging.judged_versions import PROMPTS
from tests.store.store_data import FINGERPRINT
from tests.store.store_fixtures import anna, ben, clock, empty_homes, store

__all__ = ["anna", "ben", "clock", "empty_homes", "store"]


@pytest.fixture
def base(store: Store) -> BaseModelRef:
    store.prompts.ensure(PROMPTS, held_out=True)
    return store.models.register("pocket", "stable-diffusion", FINGERPRINT)

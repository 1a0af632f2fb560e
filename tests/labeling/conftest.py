import random

import pytest

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.labeling import LabelingService, Sealer, load_or_create_key
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from tests.store.store_data import FINGERPRINT, Clock, new_pair
from tests.store.store_fixtures import anna, ben, clock, empty_homes, store

__all__ = ["anna", "ben", "clock", "empty_homes", "store"]


@pytest.fixture
def base(store: Store) -> BaseModelRef:
    base = store.models.register("pocket", "stable-diffusion", FINGERPRINT)
    store.pairs.add_many(base, [new_pair(number) for number in range(8)])
    return base


@pytest.fixture
def sealer(store: Store) -> Sealer:
    return Sealer(load_or_create_key(store.home))


@pytest.fixture
def problems() -> list[str | None]:
    """The problems that the renderer reports in this test."""
    return [None]


@pytest.fixture
def service(
    store: Store, base: BaseModelRef, sealer: Sealer, clock: Clock, problems: list[str | None]
) -> LabelingService:
    return LabelingService(
        store,
        base,
        Settings(min_votes=4, home=store.home),
        sealer,
        rng=random.Random(0),
        now=clock,
        problems=[lambda: None, lambda: problems[0]],
    )

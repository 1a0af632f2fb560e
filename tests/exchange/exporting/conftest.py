from pathlib import Path

import pytest

from dmpo_app.store import Store
from tests.exchange.exporting.campaign import Campaign
from tests.store.store_data import Clock
from tests.store.store_fixtures import clock, empty_homes, store

__all__ = ["clock", "empty_homes", "store"]


@pytest.fixture
def campaign(store: Store, clock: Clock, tmp_path: Path) -> Campaign:
    return Campaign.of(store, clock, tmp_path / "exports")

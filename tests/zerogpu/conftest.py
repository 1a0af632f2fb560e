"""Tiny base model once a session, a fresh studio a test, one torch thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model_fixtures import denoiser, one_thread, tiny_model
from tests.training.training_studio import Studio

__all__ = ["denoiser", "one_thread", "tiny_model"]


@pytest.fixture
def studio(tmp_path: Path, tiny_model: Path) -> Iterator[Studio]:
    studio = Studio.open(tmp_path / "home", tiny_model)
    yield studio
    studio.store.close()

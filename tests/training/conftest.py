"""Tiny base model once a session, a fresh studio a test, one torch thread."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model_fixtures import case, case_folder, denoiser, fixed_threads, folder, tiny_model
from tests.training.scheduler_fixtures import clock, make_scheduler
from tests.training.training_studio import TrainingStudio

__all__ = ["case", "case_folder", "clock", "denoiser", "fixed_threads", "folder", "make_scheduler", "tiny_model"]


@pytest.fixture
def studio(tmp_path: Path, tiny_model: Path) -> Iterator[TrainingStudio]:
    studio = TrainingStudio.open(tmp_path / "home", tiny_model)
    yield studio
    studio.store.close()

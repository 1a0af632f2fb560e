"""Tiny base model once a session, a fresh studio a test, one torch thread."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model_fixtures import denoiser, fixed_threads, tiny_model
from tests.training.training_studio import TrainingStudio

__all__ = ["denoiser", "fixed_threads", "tiny_model"]


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Those that are kept for a next call end with the test."""
    yield
    for process in multiprocessing.active_children():
        process.kill()
        process.join()


@pytest.fixture
def studio(tmp_path: Path, tiny_model: Path) -> Iterator[TrainingStudio]:
    studio = TrainingStudio.open(tmp_path / "home", tiny_model)
    yield studio
    studio.store.close()

"""Tiny base model once a session, a fresh studio a test, one torch thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dmpo_app.diffusion.stable_diffusion import Denoiser, load_denoiser
from tests.tiny_pipeline import make_tiny_pipeline
from tests.training.training_studio import Studio


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pipeline(tmp_path_factory.mktemp("training") / "tiny")


@pytest.fixture
def denoiser(tiny_model: Path) -> Denoiser:
    return load_denoiser(str(tiny_model), device="cpu", dtype="float32")


@pytest.fixture
def studio(tmp_path: Path, tiny_model: Path) -> Iterator[Studio]:
    studio = Studio.open(tmp_path / "home", tiny_model)
    yield studio
    studio.store.close()

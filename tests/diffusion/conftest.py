"""One tiny model a session, loaded afresh for each test; one torch thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from dmpo_app.diffusion.stable_diffusion import load_denoiser
from tests.tiny_pipeline import make_tiny_pipeline


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pipeline(tmp_path_factory.mktemp("diffusion") / "tiny")


@pytest.fixture
def unet(tiny_model: Path) -> UNet2DConditionModel:
    return load_denoiser(str(tiny_model), device="cpu", dtype="float32").unet

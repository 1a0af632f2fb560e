"""One tiny model a session; a fresh home, and the engine or the thread on it, for each test. One torch thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.diffusion.stable_diffusion import load_denoiser
from tests.adapters import random_adapter
from tests.rendering.rendering_studio import Studio
from tests.tiny_pipeline import make_tiny_pipeline


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pipeline(tmp_path_factory.mktemp("rendering") / "tiny")


@pytest.fixture(scope="session")
def adapter(tiny_model: Path) -> Callable[[int], AdapterWeights]:
    """Adapters that fit the tiny model, by seed."""
    unet: UNet2DConditionModel = load_denoiser(str(tiny_model), device="cpu", dtype="float32").unet
    return lambda seed: random_adapter(unet, seed)


@pytest.fixture
def studio(tmp_path: Path, tiny_model: Path) -> Iterator[Studio]:
    studio = Studio.open(tmp_path / "home", tiny_model)
    yield studio
    studio.store.close()

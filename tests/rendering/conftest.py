"""One tiny model a session; a fresh home, and the engine or the thread on it, for each test. One torch thread."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from diffusers import UNet2DConditionModel

from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.diffusion.loading import load_denoiser
from tests.adapters import random_adapter
from tests.model_fixtures import case, case_folder, fixed_threads, folder, tiny_model
from tests.rendering.rendering_studio import RenderingStudio

__all__ = ["case", "case_folder", "fixed_threads", "folder", "tiny_model"]


@pytest.fixture(scope="session")
def adapter(tiny_model: Path) -> Callable[[int], AdapterWeights]:
    """Adapters that fit the tiny model, by seed."""
    unet: UNet2DConditionModel = load_denoiser(str(tiny_model), device="cpu", dtype="float32").module
    return lambda seed: random_adapter(unet, seed)


@pytest.fixture
def studio(tmp_path: Path, tiny_model: Path) -> Iterator[RenderingStudio]:
    studio = RenderingStudio.open(tmp_path / "home", tiny_model)
    yield studio
    studio.store.close()

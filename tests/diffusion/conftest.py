"""One tiny model a session, loaded afresh for each test; one torch thread."""

import pytest
from diffusers import UNet2DConditionModel

from dmpo_app.diffusion.denoiser import Denoiser
from tests.model_fixtures import case, case_folder, denoiser, fixed_threads, folder, tiny_model

__all__ = ["case", "case_folder", "denoiser", "fixed_threads", "folder", "tiny_model"]


@pytest.fixture
def unet(denoiser: Denoiser) -> UNet2DConditionModel:
    return denoiser.module

"""Images watched through a linear map: exact for a fresh adapter, and nothing of training notices."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.components import UNET_WIDE
from dmpo_app.diffusion.lora import LoraSpec, attach
from dmpo_app.training.data.dataset import PairDataset, build_dataset
from dmpo_app.training.monitoring.latent_preview import LatentPreview, LatentRgbMap, downscale_png
from tests.training.training_studio import TrainingStudio

SPEC = LoraSpec(rank=2, lora_alpha=2.0, target_modules=UNET_WIDE)
RATIOS = {"saturation", "contrast", "sharpness", "diversity"}


@pytest.fixture
def dataset(studio: TrainingStudio) -> PairDataset:
    studio.add_pairs(6)
    studio.vote(6)
    return build_dataset(studio.store.votes.training_votes(studio.base), studio.store.files, alpha=0.05)


@pytest.fixture
def colours() -> LatentRgbMap:
    """The first three channels are red, green and blue."""
    weights = np.zeros((5, 3))
    weights[:3] = 40 * np.eye(3)
    weights[4] = 128
    return LatentRgbMap(weights, 1.0)


def disturb(denoiser: Denoiser, size: float) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in attach(denoiser.module, SPEC, seed=0).values():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def test_a_map_that_is_there_is_found(colours: LatentRgbMap) -> None:
    latents = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    fitted = LatentRgbMap.fit(latents, colours.render(latents))
    np.testing.assert_allclose(fitted.weights, colours.weights, atol=0.2)
    assert fitted.explained_variance > 0.999


def test_images_are_averaged_down_to_the_latents_size() -> None:
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[::2] = 200
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    small = downscale_png(file.getvalue(), (2, 4))
    assert small.shape == (2, 4, 3)
    assert (small == 100).all()


def test_a_fresh_adapters_ratios_are_exactly_one(
    denoiser: Denoiser, dataset: PairDataset, colours: LatentRgbMap
) -> None:
    attach(denoiser.module, SPEC, seed=0)
    drift = LatentPreview(denoiser, dataset, colours, num_images=8, seed=1).drift(batch_size=8)
    assert drift == dict.fromkeys(RATIOS, 1.0)


def test_an_adapter_that_changes_images_moves_the_ratios_and_the_same_ones_each_time(
    denoiser: Denoiser, dataset: PairDataset, colours: LatentRgbMap
) -> None:
    disturb(denoiser, 0.5)
    drifts = [
        LatentPreview(denoiser, dataset, colours, num_images=8, seed=1).drift(batch_size=size) for size in (8, 8, 3)
    ]
    assert drifts[0] == drifts[1] == pytest.approx(drifts[2], rel=1e-2)
    assert 1.0 not in drifts[0].values()


def test_other_seeds_watch_other_images(denoiser: Denoiser, dataset: PairDataset, colours: LatentRgbMap) -> None:
    disturb(denoiser, 0.5)
    one, other = (
        LatentPreview(denoiser, dataset, colours, num_images=4, seed=seed).drift(batch_size=4) for seed in (1, 2)
    )
    assert one != other


def test_one_prompt_is_enough(denoiser: Denoiser, dataset: PairDataset, colours: LatentRgbMap) -> None:
    first = dataset.files[0].prompt_embeds
    single = replace(dataset, files=tuple(replace(files, prompt_embeds=first) for files in dataset.files))
    attach(denoiser.module, SPEC, seed=0)
    preview = LatentPreview(denoiser, single, colours, num_images=8, seed=1)
    assert preview.drift(batch_size=8)["diversity"] == 1.0


def test_what_the_base_model_has_none_of_gives_no_ratio(denoiser: Denoiser, dataset: PairDataset) -> None:
    attach(denoiser.module, SPEC, seed=0)
    grey = LatentRgbMap(np.concatenate([np.full((1, 3), 40.0), np.zeros((3, 3)), np.full((1, 3), 128.0)]), 1.0)
    drift = LatentPreview(denoiser, dataset, grey, num_images=4, seed=1).drift(batch_size=4)
    assert drift.keys() == RATIOS - {"saturation"}


def test_images_that_are_not_finite_are_nan_in_every_ratio(
    denoiser: Denoiser, dataset: PairDataset, colours: LatentRgbMap
) -> None:
    preview = LatentPreview(denoiser, dataset, colours, num_images=4, seed=1)
    disturb(denoiser, 1e30)
    assert all(np.isnan(ratio) for ratio in preview.drift(batch_size=4).values())


def test_looking_leaves_random_state_gradients_and_parameters_alone(
    denoiser: Denoiser, dataset: PairDataset, colours: LatentRgbMap
) -> None:
    parameters = attach(denoiser.module, SPEC, seed=0)
    before = {key: parameter.detach().clone() for key, parameter in parameters.items()}
    state = torch.get_rng_state()
    LatentPreview(denoiser, dataset, colours, num_images=4, seed=1).drift(batch_size=4)
    assert torch.equal(torch.get_rng_state(), state)
    for key, parameter in parameters.items():
        assert parameter.requires_grad
        assert parameter.grad is None
        assert torch.equal(parameter, before[key])

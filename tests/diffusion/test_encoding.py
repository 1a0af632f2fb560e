"""Images from elsewhere become latents of each family: what its decoder undoes, the same each time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dmpo_app.diffusion.loading import Encoder, load_pipeline, resize_and_crop
from dmpo_app.errors import SetupError
from tests.tiny_models.cases import Case, one_a_family
from tests.tiny_models.sdxl import make_tiny_sdxl
from tests.tolerance import assert_latents_agree


def coarse_images(size: tuple[int, int], count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [resize_and_crop(Image.fromarray(one).resize((size[1], size[0])), size) for one in coarse]


@pytest.fixture
def encoder(case: Case, folder: Path) -> Encoder:
    return Encoder.load(str(folder), device="cpu", dtype="float32", resolution=case.resolution)


@one_a_family
@torch.no_grad()
def test_decoding_what_was_encoded_is_the_autoencoders_own_round_trip(
    case: Case, folder: Path, encoder: Encoder
) -> None:
    some = coarse_images(encoder.size)
    latents = encoder.latents(some)
    assert tuple(latents.shape) == (3, *case.latent_shape)
    whole = load_pipeline(str(folder), device="cpu", dtype="float32")
    pixels = torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2).float() / 127.5 - 1
    round_trip = whole.vae.decode(whole.vae.encode(pixels).latent_dist.mean).sample
    assert_latents_agree(encoder.family.decode(whole, latents)[0], round_trip)
    assert float(latents.std()) > 0


@one_a_family
def test_latents_are_the_mode_and_the_same_each_time(encoder: Encoder) -> None:
    some = coarse_images(encoder.size)
    torch.manual_seed(1)
    first = encoder.latents(some)
    torch.manual_seed(2)
    assert torch.equal(encoder.latents(some), first)


@one_a_family
def test_prompts_are_encoded_as_the_whole_pipeline_encodes_them(folder: Path, encoder: Encoder) -> None:
    whole = load_pipeline(str(folder), device="cpu", dtype="float32")
    with torch.no_grad():
        expected = encoder.family.encode_prompt(whole, "a red cat")
    found = encoder.conditioning("a red cat")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@one_a_family
def test_the_encoder_holds_no_denoiser_and_needs_none_of_its_weights(folder: Path, encoder: Encoder) -> None:
    assert encoder.pipeline.components[encoder.family.component] is None
    assert encoder.pipeline.components.get("safety_checker") is None


def test_an_autoencoder_with_channel_statistics_is_undone_too(tmp_path: Path) -> None:
    folder = make_tiny_sdxl(tmp_path / "model")
    whole = load_pipeline(str(folder), device="cpu", dtype="float32")
    whole.vae.register_to_config(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.5, 2.0, 1.0])
    whole.save_pretrained(tmp_path / "with-statistics")
    encoder = Encoder.load(str(tmp_path / "with-statistics"), device="cpu", dtype="float32", resolution=None)
    some = coarse_images(encoder.size)
    plain = Encoder.load(str(folder), device="cpu", dtype="float32", resolution=None)
    assert not torch.allclose(encoder.latents(some), plain.latents(some))
    with torch.no_grad():
        back, _ = encoder.family.decode(encoder.pipeline, encoder.latents(some))
        same, _ = plain.family.decode(plain.pipeline, plain.latents(some))
    torch.testing.assert_close(back, same, rtol=1e-4, atol=1e-4)


@one_a_family
def test_a_resolution_that_the_model_cannot_have_is_refused(folder: Path) -> None:
    with pytest.raises(SetupError, match="67 is not a multiple"):
        Encoder.load(str(folder), device="cpu", dtype="float32", resolution=67)


@pytest.mark.parametrize("size", [(30, 40), (40, 30), (64, 64), (200, 50), (7, 9)])
def test_an_image_is_resized_to_cover_and_cropped_around_its_middle(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "black")
    image.paste((255, 255, 255), (size[0] // 2 - 1, size[1] // 2 - 1, size[0] // 2 + 1, size[1] // 2 + 1))
    found = resize_and_crop(image, (32, 32))
    assert found.shape == (32, 32, 3)
    bright = np.argwhere(found[..., 0] > found[..., 0].max() // 2).mean(0)
    assert np.abs(bright - 15.5).max() < 2.5


def test_an_image_of_the_right_size_is_left_as_it_is() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    assert np.array_equal(resize_and_crop(image, (32, 32)), np.asarray(image))

"""Images become a tower's input as CLIP's own preprocessing makes it."""

import numpy as np
import PIL.Image
import pytest
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from dmpo_app.scoring.networks import Preprocess, middle_square


@pytest.mark.parametrize("size", [(64, 64), (32, 32), (100, 64), (64, 200), (16, 24)])
def test_it_is_what_clips_image_processor_computes_with_pil(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = PIL.Image.fromarray(pixels)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    expected = processor(image, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(Preprocess(32)([image]), expected, atol=1e-5)


def test_of_a_wide_image_the_middle_is_kept() -> None:
    pixels = np.zeros((32, 96, 3), np.uint8)
    pixels[:, 32:64] = 255
    assert np.asarray(middle_square(PIL.Image.fromarray(pixels), 32)).min() == 255


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (300, 2)])
def test_very_thin_images_become_squares_too(size: tuple[int, int]) -> None:
    assert middle_square(PIL.Image.new("RGB", size), 32).size == (32, 32)


def test_grey_and_transparent_images_become_three_channels() -> None:
    images = [PIL.Image.new(mode, (40, 40), colour) for mode, colour in (("L", 128), ("RGBA", (128, 128, 128, 9)))]
    grey, transparent = Preprocess(32)(images)
    np.testing.assert_array_equal(grey, transparent)

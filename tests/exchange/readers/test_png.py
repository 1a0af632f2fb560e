"""PNG files of images: the same pixels back, and nothing else in them."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dmpo_app.exchange.importing.image_decoding import encode_png
from dmpo_app.exchange.readers.reader import decode_image


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 7), (7, 1), (2, 2), (64, 64), (33, 256), (5, 257), (3, 600)])
def test_the_same_pixels_come_back(width: int, height: int) -> None:
    image = noise(width, height)
    read = Image.open(io.BytesIO(encode_png(image)), formats=["PNG"])
    assert read.mode == "RGB"
    assert np.array_equal(np.asarray(read), np.asarray(image))


def test_the_same_pixels_give_the_same_bytes_and_nothing_else_is_kept() -> None:
    notes = PngInfo()
    notes.add_text("where", "the canary sang here")
    file = io.BytesIO()
    noise(8, 8).save(file, "PNG", pnginfo=notes, icc_profile=b"canary profile")
    kept = encode_png(decode_image(file.getvalue() + b"a canary behind the end"))
    assert kept == encode_png(noise(8, 8))
    assert b"canary" not in kept
    assert Image.open(io.BytesIO(kept)).info == {}


def test_an_image_compresses_as_well_as_pillow_does_or_nearly() -> None:
    smooth = noise(8, 8).resize((256, 256), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    smooth.save(file, "PNG", compress_level=1)
    assert len(encode_png(smooth)) < 1.3 * len(file.getvalue()) < 0.9 * 3 * 256 * 256

"""Tiny weights of each scorer, once a session, and images to score; one torch thread."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.model_fixtures import fixed_threads
from tests.scoring.tiny_scorers import make_aesthetic, make_clip, make_hpsv2, make_imagereward

__all__ = ["fixed_threads"]

MAKERS: dict[str, Callable[..., Path]] = {
    "pickscore": make_clip,
    "clip": make_clip,
    "hpsv2": make_hpsv2,
    "aesthetic": make_aesthetic,
    "imagereward": make_imagereward,
}


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder of weights for each scorer that needs some."""
    folder = tmp_path_factory.mktemp("weights")
    return {name: str(make(folder / name)) for name, make in MAKERS.items()}


@pytest.fixture
def images() -> list[PIL.Image.Image]:
    """Seven images, of several sizes and modes."""
    rng = np.random.default_rng(0)
    sizes = ((32, 32), (64, 64), (40, 90), (128, 50), (20, 20), (33, 47), (64, 65))
    coarse = [rng.integers(0, 256, (4, 4, 3), dtype=np.uint8) for _ in sizes]
    images = [
        PIL.Image.fromarray(pixels).resize(size, PIL.Image.Resampling.BICUBIC)
        for pixels, size in zip(coarse, sizes, strict=True)
    ]
    images[1], images[3] = images[1].convert("L"), images[3].convert("RGBA")
    return images


@pytest.fixture
def prompts() -> list[str]:
    """One for each image; some are the same, one is much too long, one says nothing."""
    long = "a red cat on a very green meadow " * 40
    return ["a red cat", "a blue boat at night", "a red cat", long, "", "two green trees", "a red cat"]

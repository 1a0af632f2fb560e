"""Tastes rank images by what their names say."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dmpo_app.errors import BadInputError
from dmpo_app.labeling.tastes import TASTES, get_taste

SIZE = 64


def square(*, side: int, middle: int, colour: tuple[int, int, int] = (220, 30, 30)) -> np.ndarray:
    """A square that stands on a plain background."""
    image = np.full((SIZE, SIZE, 3), 90, np.uint8)
    image[40 - side // 2 : 40 + side // 2, middle - side // 2 : middle + side // 2] = colour
    return image


def better_and_worse(name: str) -> tuple[np.ndarray, np.ndarray]:
    grey = np.full((SIZE, SIZE, 3), 128, np.uint8)
    red, blue = grey.copy(), grey.copy()
    red[..., 0], blue[..., 2] = 200, 200
    stripes = grey.copy()
    stripes[:, ::2] = 40
    small, large = square(side=12, middle=32), square(side=24, middle=32)
    left, right = square(side=14, middle=16), square(side=14, middle=48)
    return {
        "warm": (red, blue),
        "cool": (blue, red),
        "vivid": (red, grey),
        "bright": (grey, grey // 2),
        "dark": (grey // 2, grey),
        "contrast": (stripes, grey),
        "large": (large, small),
        "left": (left, right),
        "right": (right, left),
        "sharp": (stripes, grey),
    }[name]


@pytest.mark.parametrize("name", sorted(TASTES))
def test_a_taste_prefers_what_its_name_says(name: str) -> None:
    better, worse = TASTES[name].scores(np.stack(better_and_worse(name)))
    assert better > worse


def test_there_are_tastes_of_colour_light_size_and_place() -> None:
    assert {"colour", "light", "size", "place"} <= {taste.kind for taste in TASTES.values()}


def test_a_batch_scores_as_its_images_do_alone() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    for taste in TASTES.values():
        alone = np.concatenate([taste.scores(image[None]) for image in images])
        np.testing.assert_allclose(taste.scores(images), alone, rtol=1e-12)


def test_an_image_in_which_nothing_stands_out_has_its_subject_in_the_middle() -> None:
    plain = np.full((1, SIZE, SIZE, 3), 70, np.uint8)
    assert TASTES["left"].scores(plain) == TASTES["right"].scores(plain) == 0
    assert TASTES["large"].scores(plain) == 0


def test_an_unknown_taste_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(BadInputError, match=r"bitter.*warm"):
        get_taste("bitter")


def test_images_of_another_type_are_refused() -> None:
    images: NDArray[Any] = np.zeros((1, 8, 8, 3))
    with pytest.raises(BadInputError, match="float64"):
        TASTES["warm"].scores(images)

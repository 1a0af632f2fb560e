"""Tastes of simulated annotators, computed from pixels, for trying the loop alone and for benchmarks.

Each is a pure function of images (B, H, W, 3), uint8 RGB; a higher score is preferred. They measure colour and light,
detail, and where something stands out from its surroundings; none knows what is in an image.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmpo_app.errors import BadInputError
from dmpo_app.scoring import measures


@dataclass(frozen=True, slots=True)
class Taste:
    """A taste: a preference over images. `kind` groups tastes that ask for the same sort of change."""

    name: str
    kind: str
    description: str
    score: Callable[[measures.Images], measures.Scores]

    def scores(self, images: measures.Images) -> measures.Scores:
        """One score an image, (B,), for uint8 RGB images (B, H, W, 3). Higher is preferred."""
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise BadInputError(f"images are {images.dtype} {images.shape}; expected uint8 (B, H, W, 3)")
        return self.score(images)


def _coolness(images: measures.Images) -> measures.Scores:
    return -measures.warmth(images)


def _darkness(images: measures.Images) -> measures.Scores:
    return -measures.brightness(images)


def _subject_size(images: measures.Images) -> measures.Scores:
    """Size of the subject: the share of the image that stands out, in [0, 1]; see `_salience`."""
    return measures.mean(_salience(images))


def _subject_on_left(images: measures.Images) -> measures.Scores:
    """Distance of the subject's centre of gravity to the left of the middle, in [-0.5, 0.5]."""
    columns = _salience(images).sum(1)
    leftness = 0.5 - (np.arange(columns.shape[1]) + 0.5) / columns.shape[1]
    scores: measures.Scores = columns @ leftness / np.maximum(columns.sum(1), 1e-9)
    return scores


def _subject_on_right(images: measures.Images) -> measures.Scores:
    return -_subject_on_left(images)


def _salience(images: measures.Images) -> NDArray[np.float64]:
    """Salience of each pixel, in [0, 1], (B, rows, W); the uppermost quarter, where suns stand, is left out.

    A row's background is the median colour of its outermost 1/32 on either side. The distance of a pixel to the nearer
    of the two (sum over lightness, red - blue, magenta - green) rises from 0 at 0.15 to 1 at 0.35. On the scenes of the
    pocket model with one subject this ranks sizes with a correlation of 0.8, places with 0.95.
    """
    rgb = measures.to_unit_range(images[:, images.shape[1] // 4 :])
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    colour = np.stack([(red + green + blue) / 3, red - blue, (red + blue) / 2 - green], axis=-1)
    edge = max(1, colour.shape[2] // 32)
    distances = [
        np.abs(colour - np.median(side, axis=2, keepdims=True)).sum(-1)
        for side in (colour[:, :, :edge], colour[:, :, -edge:])
    ]
    salience: NDArray[np.float64] = np.clip((np.minimum(*distances) - 0.15) / 0.2, 0.0, 1.0)
    return salience


TASTES: dict[str, Taste] = {
    taste.name: taste
    for taste in (
        Taste("warm", "colour", "warm colours: red over blue", measures.warmth),
        Taste("cool", "colour", "cool colours: blue over red", _coolness),
        Taste("vivid", "colour", "saturated colours", measures.saturation),
        Taste("bright", "light", "bright images", measures.brightness),
        Taste("dark", "light", "dark images", _darkness),
        Taste("contrast", "light", "strong contrast of light and dark", measures.contrast),
        Taste("large", "size", "a large subject", _subject_size),
        Taste("left", "place", "the subject on the left", _subject_on_left),
        Taste("right", "place", "the subject on the right", _subject_on_right),
        Taste("sharp", "detail", "fine detail and hard edges", measures.sharpness),
    )
}


def get_taste(name: str) -> Taste:
    """Get a taste by name. Raises BadInputError with the names there are."""
    try:
        return TASTES[name]
    except KeyError:
        raise BadInputError(f"there is no taste named {name!r}; there are {', '.join(TASTES)}") from None

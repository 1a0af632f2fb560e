"""Tastes of simulated annotators, computed from pixels, for trying the loop alone and for benchmarks.

Each is a pure function of images (B, H, W, 3), uint8 RGB; a higher score is preferred. They measure colour and light,
detail, and where something stands out from its surroundings; none knows what is in an image.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

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


def _subject_on_right(images: measures.Images) -> measures.Scores:
    return -measures.subject_leftness(images)


TASTES: dict[str, Taste] = {
    taste.name: taste
    for taste in (
        Taste("warm", "colour", "warm colours: red over blue", measures.warmth),
        Taste("cool", "colour", "cool colours: blue over red", _coolness),
        Taste("vivid", "colour", "saturated colours", measures.saturation),
        Taste("bright", "light", "bright images", measures.brightness),
        Taste("dark", "light", "dark images", _darkness),
        Taste("contrast", "light", "strong contrast of light and dark", measures.contrast),
        Taste("large", "size", "a large subject", measures.subject_size),
        Taste("left", "place", "the subject on the left", measures.subject_leftness),
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

"""Measures of pixels by which the effects of a version are told, each with words for less and for more of it.

numpy only. Images of any size; large ones are scaled down first, which is fast and the same for both versions.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from dmpo_app.domain.effects import EffectMeasure
from dmpo_app.scoring import measures

MAX_SIDE = 256
"""Longest side that is measured, in pixels."""
_VARIETY_SIDE = 64
_CODE_VERSION = 1

_PIXEL_MEASURES: tuple[tuple[EffectMeasure, Callable[[measures.Images], measures.Scores]], ...] = (
    (EffectMeasure("brightness", "darker", "brighter", "percent"), measures.brightness),
    (EffectMeasure("contrast", "lower in contrast", "higher in contrast", "percent"), measures.contrast),
    (EffectMeasure("saturation", "less saturated", "more saturated", "percent"), measures.saturation),
    (EffectMeasure("warmth", "cooler", "warmer", "points"), measures.warmth),
    (EffectMeasure("greenness", "more magenta", "greener", "points"), measures.greenness),
    (EffectMeasure("sharpness", "softer", "sharper", "percent"), measures.sharpness),
    (EffectMeasure("shadows", "with less in deep shadow", "with more in deep shadow", "points"), measures.shadows),
    (EffectMeasure("symmetry", "less symmetric", "more symmetric", "points"), measures.symmetry),
    (EffectMeasure("subject_size", "with a smaller subject", "with a larger subject", "points"), measures.subject_size),
    (
        EffectMeasure("subject_place", "with the subject further right", "with the subject further left", "points"),
        measures.subject_leftness,
    ),
)
VARIETY = EffectMeasure("variety", "more alike for one prompt", "more varied for one prompt", "percent")
"""The distance of an image from the others of its prompt; measured only where a prompt has several seeds."""


class EffectScorer(Protocol):
    """Scorer of images by one or more measures. `identities` are keys of the stored scores, one a measure."""

    @property
    def measures(self) -> tuple[EffectMeasure, ...]: ...

    @property
    def identities(self) -> tuple[str, ...]: ...

    def score(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str], /) -> NDArray[np.float64]:
        """Score images by each measure, (B, K), finite."""
        ...

    def release(self) -> None:
        """Give up what takes much memory; it is loaded again when it is needed."""
        ...


class PixelEffects:
    """Scorer by the measures of pixels."""

    measures = tuple(measure for measure, _ in _PIXEL_MEASURES)
    identities = tuple(f"effect-{measure.name}/{_CODE_VERSION}" for measure, _ in _PIXEL_MEASURES)

    def score(self, images: Sequence[PIL.Image.Image], _prompts: Sequence[str]) -> NDArray[np.float64]:
        """Score images one by one, since their sizes may differ; see `EffectScorer.score`."""
        rows = [[float(of(pixels)[0]) for _, of in _PIXEL_MEASURES] for pixels in map(_to_pixels, images)]
        return np.array(rows).reshape(len(rows), len(_PIXEL_MEASURES))

    def release(self) -> None:
        """Do nothing: measures take no memory."""


def _to_pixels(image: PIL.Image.Image) -> measures.Images:
    """Pixels (1, H, W, 3) of an image, scaled down to `MAX_SIDE`."""
    image = image.convert("RGB")
    image.thumbnail((MAX_SIDE, MAX_SIDE), PIL.Image.Resampling.BOX)
    return np.asarray(image)[None]


def image_distance(image: PIL.Image.Image, other: PIL.Image.Image) -> float:
    """The mean absolute difference of two images' pixels as a share of their range, in [0, 1]."""
    other = other if other.size == image.size else other.resize(image.size)
    pixels, other_pixels = (np.asarray(one.convert("RGB"), np.float64) for one in (image, other))
    return float(np.abs(pixels - other_pixels).mean() / 255)


def variety(images: Sequence[PIL.Image.Image]) -> NDArray[np.float64]:
    """The mean distance of each of a prompt's images, two at least, to the others, (S,) in [0, 1]."""
    small = [image.convert("RGB").resize((_VARIETY_SIDE, _VARIETY_SIDE), PIL.Image.Resampling.BOX) for image in images]
    distances = np.array([[image_distance(image, other) for other in small] for image in small])
    means: NDArray[np.float64] = distances.sum(1) / (len(images) - 1)
    return means

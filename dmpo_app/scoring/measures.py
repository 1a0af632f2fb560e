"""Measures of pixels: pure functions of images (B, H, W, 3), uint8 RGB, to one float64 each, (B,).

numpy only. They measure colour, light and detail; none knows what is in an image.
"""

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Scores = NDArray[np.float64]


def warmth(images: Images) -> Scores:
    """Colour warmth: mean of red minus blue, in [-1, 1]."""
    rgb = to_unit_range(images)
    return mean(rgb[..., 0] - rgb[..., 2])


def brightness(images: Images) -> Scores:
    """Brightness: mean luma (Rec. 601), in [0, 1]."""
    return mean(luma(images))


def contrast(images: Images) -> Scores:
    """Contrast: standard deviation of the luma over the image, in [0, 0.5]."""
    deviation: Scores = luma(images).std((1, 2))
    return deviation


def saturation(images: Images) -> Scores:
    """Saturation: mean of the largest minus the smallest channel, in [0, 1]."""
    rgb = to_unit_range(images)
    return mean(rgb.max(-1) - rgb.min(-1))


def sharpness(images: Images) -> Scores:
    """Sharpness: mean absolute difference of the luma between neighbours, across and down, in [0, 2].

    Per pixel, so the same image at a larger size is less sharp. A single row or column has no neighbours and adds 0.
    """
    values = luma(images)
    return _mean_step(values, axis=1) + _mean_step(values, axis=2)


def _mean_step(values: NDArray[np.float64], axis: int) -> Scores:
    if values.shape[axis] < 2:
        return np.zeros(len(values))
    return mean(np.abs(np.diff(values, axis=axis)))


def mean(values: NDArray[np.float64]) -> Scores:
    """The mean over rows and columns, (B,)."""
    averages: Scores = values.mean((1, 2))
    return averages


def to_unit_range(images: Images) -> NDArray[np.float64]:
    """Scale pixels from 0..255 to 0..1."""
    return images.astype(np.float64) / 255.0


def luma(images: Images) -> NDArray[np.float64]:
    """The luma of Rec. 601, (B, H, W), in [0, 1]."""
    values: NDArray[np.float64] = to_unit_range(images) @ np.array([0.299, 0.587, 0.114])
    return values

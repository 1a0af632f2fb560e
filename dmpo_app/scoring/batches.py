"""What every scorer does with its images: check them, cut them into batches, check the scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from dmpo_app.errors import BadInput, StudioError

Batch = Callable[[Sequence[PIL.Image.Image], Sequence[str]], NDArray[np.float32]]


def in_batches(
    name: str, batch: Batch, images: Sequence[PIL.Image.Image], prompts: Sequence[str], batch_size: int
) -> NDArray[np.float32]:
    """The scores of `batch` over at most `batch_size` images at a time, (B,) float32; (0,) for no images.

    Raises BadInput for inputs that do not belong together, StudioError for a score that is not finite.
    """
    _check(images, prompts)
    parts = [
        batch(images[start : start + batch_size], prompts[start : start + batch_size])
        for start in range(0, len(images), batch_size)
    ]
    scores = np.concatenate(parts, dtype=np.float32) if parts else np.zeros(0, np.float32)
    if scores.shape != (len(images),):
        raise StudioError(f"{name} gave scores of shape {scores.shape}, expected ({len(images)},)")
    if not np.isfinite(scores).all():
        which = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise StudioError(
            f"{name} gave image {which} ({prompts[which]!r}) the score {scores[which]}; are its weights damaged?"
        )
    return scores


def _check(images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> None:
    if isinstance(prompts, str):
        raise BadInput("prompts must be a sequence with one prompt for each image, not a single string")
    if len(images) != len(prompts):
        raise BadInput(f"there are {len(images)} images and {len(prompts)} prompts; each image needs its prompt")
    for index, image in enumerate(images):
        if 0 in image.size:
            raise BadInput(f"image {index} is {image.size[0]} x {image.size[1]} pixels; there is nothing to score")

"""Preprocessing of images for scorers, in batches.

As OpenAI's CLIP, open_clip and ImageReward do it through torchvision: the shorter side to the tower's size (bicubic,
antialiased, by PIL), the middle square, 0..1, minus the mean, over the deviation. transformers' image processors
compute this with torchvision where it is installed and with PIL where it is not, and the two differ by more than
rounding; a score must not depend on which packages are there.

Shapes:  B images;  S the tower's size in pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from dmpo_app.errors import BadInputError, StudioError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Resize, crop and normalise for a vision tower.

    `size` S in pixels; `mean` and `deviation` of the three channels, for values in 0..1.
    """

    size: int
    mean: tuple[float, ...] = CLIP_MEAN
    deviation: tuple[float, ...] = CLIP_DEVIATION

    def __call__(self, images: Sequence[PIL.Image.Image]) -> NDArray[np.float32]:
        """Preprocess images to (B, 3, S, S), normalised. Transparency is dropped, grey becomes three equal channels."""
        squares = np.stack([np.asarray(middle_square(image.convert("RGB"), self.size)) for image in images])
        pixels = squares.astype(np.float32) / np.float32(255)
        pixels -= np.array(self.mean, np.float32)
        pixels /= np.array(self.deviation, np.float32)
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def middle_square(image: PIL.Image.Image, size: int) -> PIL.Image.Image:
    """Scale the shorter side of an image to `size` and crop the middle `size` x `size`."""
    width, height = image.size
    shorter = min(width, height)
    if shorter != size:
        scaled = (max(size, int(size * width / shorter)), max(size, int(size * height / shorter)))
        image = image.resize(scaled, PIL.Image.Resampling.BICUBIC)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


ScoreBatch = Callable[[Sequence[PIL.Image.Image], Sequence[str]], NDArray[np.float32]]


def score_in_batches(
    name: str, score_batch: ScoreBatch, images: Sequence[PIL.Image.Image], prompts: Sequence[str], batch_size: int
) -> NDArray[np.float32]:
    """Score images with `score_batch`, at most `batch_size` at a time: (B,) float32; (0,) for no images.

    Raises BadInputError for inputs that do not belong together, StudioError for a score that is not finite.
    """
    _check(images, prompts)
    parts = [
        score_batch(images[start : start + batch_size], prompts[start : start + batch_size])
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
        raise BadInputError("prompts must be a sequence with one prompt for each image, not a single string")
    if len(images) != len(prompts):
        raise BadInputError(f"there are {len(images)} images and {len(prompts)} prompts; each image needs its prompt")
    for index, image in enumerate(images):
        if 0 in image.size:
            raise BadInputError(f"image {index} is {image.size[0]} x {image.size[1]} pixels; there is nothing to score")

"""Tolerances for results of two different computations. The same computation is held to the bit, without this module.

Two programs that compute one formula (LoRA through the studio's gate and through peft, an image in the stock pipeline's
loop and in the studio's, a batch whole and in pieces, a pass with gradients and one without) add and multiply in
another order, so they agree up to rounding. How they round is decided by the processor's instructions, the number of
threads and the build of torch: that the bits are equal on one machine says nothing of the next.

Where the computation is the same, tests ask for equal bits: a round resumed and uninterrupted, or in slices; a version
swapped out and back; the same request twice; policy and reference of a fresh adapter.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

GREY_LEVELS = 1
"""An 8-bit image's largest difference. Rounding moves a value by far less than a level, and so at most to the next."""
SHARE_OF_VALUES = 0.01
"""The largest share of an image's values that may differ. Rounding reaches another level once in thousands of values;
an image that was converted in another way (cut off, not rounded) differs in half of them."""
RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""For float32 latents and what a network computes of them: some hundred roundings of 6e-8 each, and a wide margin."""
LOSS_RELATIVE = 1e-3
"""For losses and margins: beta, some hundreds in the tests, multiplies a difference of errors of the order 1."""


def images_agree(images: Sequence[Image], others: Sequence[Image]) -> bool:
    """Equal up to rounding, image by image."""
    return len(images) == len(others) and not any(
        _difference(image, other) for image, other in zip(images, others, strict=True)
    )


def assert_images_agree(images: Sequence[Image], others: Sequence[Image]) -> None:
    """Fail with how far apart the images are unless they are equal up to rounding."""
    assert len(images) == len(others)
    for number, (image, other) in enumerate(zip(images, others, strict=True)):
        difference = _difference(image, other)
        assert not difference, f"image {number}: {difference}"


def assert_latents_agree(latents: Tensor, others: Tensor) -> None:
    """Fail with how far apart the tensors are unless they are equal up to rounding in float32."""
    torch.testing.assert_close(latents, others, rtol=RELATIVE, atol=ABSOLUTE)


def _difference(image: Image, other: Image) -> str:
    """The difference of two images beyond rounding in words, or an empty text."""
    if image.size != other.size or image.mode != other.mode:
        return f"{image.mode} {image.size} and {other.mode} {other.size}"
    levels = np.abs(np.asarray(image, np.int16) - np.asarray(other, np.int16))
    if levels.max() <= GREY_LEVELS and (levels > 0).mean() <= SHARE_OF_VALUES:
        return ""
    return f"{(levels > 0).mean():.1%} of the values differ, by up to {levels.max()} grey levels"

"""The protocol of an automatic scorer."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import PIL.Image
from numpy.typing import NDArray


class Scorer(Protocol):
    """Scorer of images, each for its prompt; the same image and prompt get the same score in any batch, up to rounding.

    `name` is the one in the registry. `identity` is part of a cache's key: it changes with the weights and with the
    code that computes the score. `scale` is the usual tau of sigmoid((r_a - r_b) / tau): a difference of this size is
    about one unit of log odds that a is preferred; each scorer says where its number comes from.
    """

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    @property
    def scale(self) -> float: ...

    def score(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> NDArray[np.float32]:
        """Score images, (B,), finite, higher is better.

        Images may differ in size and mode; prompts that are too long are cut.

        Raises BadInputError unless there are as many prompts as images, StudioError when a score is not finite.
        """
        ...

"""Scorers by a measure of pixels. No weights, no torch; prompts do not matter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from dmpo_app.scoring import measures
from dmpo_app.scoring.networks import score_in_batches

_CODE_VERSION = 1
_MEASURES: dict[str, Callable[[measures.Images], measures.Scores]] = {
    "warmth": measures.warmth,
    "brightness": measures.brightness,
    "contrast": measures.contrast,
    "saturation": measures.saturation,
    "sharpness": measures.sharpness,
}
# The median difference between the two images of a pair, over the pairs that ship with the pocket model: of an
# ordinary pair the better one is then preferred at 73 %.
_SCALES = {"warmth": 0.07, "brightness": 0.06, "contrast": 0.02, "saturation": 0.03, "sharpness": 0.003}


@dataclass(frozen=True, slots=True)
class PixelScorer:
    """Scorer by one of the measures in `measures`, whatever the prompt says."""

    name: str

    @property
    def identity(self) -> str:
        return f"{self.name}/{_CODE_VERSION}"

    @property
    def scale(self) -> float:
        return _SCALES[self.name]

    def score(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> NDArray[np.float32]:
        """Score images; see `Scorer.score`. Each image is measured at its own size."""
        return score_in_batches(self.name, lambda batch, _: self._measure(batch), images, prompts, batch_size=1)

    def _measure(self, images: Sequence[PIL.Image.Image]) -> NDArray[np.float32]:
        pixels = np.stack([np.asarray(image.convert("RGB")) for image in images])
        return _MEASURES[self.name](pixels).astype(np.float32)

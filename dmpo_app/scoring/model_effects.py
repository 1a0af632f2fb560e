"""Measures of a version's effects by models: attributes of the pocket world, and any automatic scorer.

The judge of the pocket world is the small network in `pocket/classifiers`, trained on renders only. A class is measured
by its probability, so that an image that is half way to the night counts for half.
"""

from collections.abc import Callable, Sequence

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray

from dmpo_app.domain.effects import EffectMeasure
from dmpo_app.pocket.classifiers import HEADS, MEASURES
from dmpo_app.scoring.pocket_fidelity import PocketFidelityScorer, build_pocket_fidelity, crop_to_input
from dmpo_app.scoring.registry import Scorer, build_scorer

_WORDS = {
    "colour": "with a {} subject",
    "setting": "in a {} setting",
    "time": "at {}",
}
_NUMBER = EffectMeasure("subject_number", "with fewer subjects", "with more subjects", "percent")
_SIZE = EffectMeasure("subject_size", "with a smaller subject", "with a larger subject", "percent")
_PLACE = EffectMeasure("subject_place", "with the subject further left", "with the subject further right", "points")
_FIDELITY = EffectMeasure("pocket-fidelity", "less true to the prompt", "truer to the prompt", "deviations")


def _class_measures() -> tuple[EffectMeasure, ...]:
    return tuple(
        EffectMeasure(
            f"{head}_{value}", f"less often {words.format(value)}", f"more often {words.format(value)}", "points"
        )
        for head, words in _WORDS.items()
        for value in HEADS[head]
    )


class PocketAttributes:
    """Scorer of attributes; its size and place of the subject take the place of those measured from pixels."""

    measures = (*_class_measures(), _NUMBER, _SIZE, _PLACE, _FIDELITY)

    def __init__(self, fidelity: PocketFidelityScorer) -> None:
        self._fidelity = fidelity
        self.identities = tuple(f"{fidelity.identity}/{measure.name}" for measure in self.measures)

    @classmethod
    def load(cls, device: str) -> "PocketAttributes":
        """Load the classifier that ships. Raises ModelUnavailableError or SetupError."""
        return cls(build_pocket_fidelity(None, device, batch_size=16))

    @torch.inference_mode()
    def score(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Score images, (B, K); see `EffectScorer.score`."""
        pixels = torch.cat([crop_to_input(image) for image in images]).to(self._fidelity.device)
        logits, measures = self._fidelity.network(pixels)
        probabilities = {head: values.softmax(-1).double().cpu().numpy() for head, values in logits.items()}
        read = measures.double().cpu().numpy()
        columns = [
            *(probabilities[head] for head in _WORDS),
            (probabilities["number"] @ np.arange(1, len(HEADS["number"]) + 1))[:, None],
            read[:, [MEASURES.index("size"), MEASURES.index("place")]],
            self._fidelity.score(images, prompts)[:, None],
        ]
        return np.concatenate(columns, axis=1).astype(np.float64)

    def release(self) -> None:
        """Do nothing: the network is small."""


class ModelEffects:
    """Scorer by an automatic scorer, which is in memory only while there is something to score."""

    def __init__(self, scorer: Scorer, build: Callable[[], Scorer]) -> None:
        self._scorer: Scorer | None = scorer
        self._build = build
        name = scorer.name
        self.measures = (EffectMeasure(name, f"lower by {name}", f"higher by {name}", "deviations"),)
        self.identities = (scorer.identity,)

    @classmethod
    def load(cls, name: str, source: str | None, device: str, batch_size: int) -> "ModelEffects":
        """Load a scorer of the registry. Raises like `build_scorer`."""

        def build() -> Scorer:
            return build_scorer(name, source=source, device=device, batch_size=batch_size)

        return cls(build(), build)

    def score(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Score images, (B, 1); see `EffectScorer.score`."""
        if self._scorer is None:
            self._scorer = self._build()
        return self._scorer.score(images, prompts)[:, None].astype(np.float64)

    def release(self) -> None:
        """Give up the scorer's weights."""
        self._scorer = None

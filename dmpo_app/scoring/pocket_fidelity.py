"""Prompt fidelity of images of the pocket world: the mean log-probability of the attributes that the prompt names.

The judge is the small network in `pocket/classifiers`, trained on renders only. Of what a prompt can name it reads
subject, colour, setting, time and number; weather, size and place do not count. A prompt that names none of them scores
0 for every image, which prefers none.

Shapes:  B images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmpo_app.diffusion.placement import resolve_device
from dmpo_app.pocket.classifiers import HEADS, INPUT_SIZE, AttributeClassifier, AttributeNetwork, to_network_input
from dmpo_app.pocket.language import parse
from dmpo_app.pocket.scenes import NUMBERS
from dmpo_app.scoring import weights
from dmpo_app.scoring.networks import freeze, translate_load_errors
from dmpo_app.scoring.registry import score_in_batches
from dmpo_app.settings import shipped_data

DEFAULT_WEIGHTS = shipped_data("classifiers/attributes.safetensors")

_CODE_VERSION = 1
# The prompts that ship name four attributes that count, on average: a quarter in the mean is one nat of the whole
# reading, so one unit of the log odds that this image and not the other shows what was asked for.
_SCALE = 0.25


@dataclass(frozen=True, slots=True)
class PocketFidelityScorer:
    """Scorer of prompt fidelity; at most 0, which is certainty that everything named is there."""

    identity: str
    network: AttributeNetwork
    device: torch.device
    batch_size: int
    name: str = "pocket-fidelity"
    scale: float = _SCALE

    def score(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> NDArray[np.float32]:
        """Score images for their prompts; see `Scorer.score`. Of images that are not square the middle is judged."""
        return score_in_batches(self.name, self._score_batch, images, prompts, self.batch_size)

    @torch.inference_mode()
    def _score_batch(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> NDArray[np.float32]:
        logits, _ = self.network(torch.cat([crop_to_input(image) for image in images]).to(self.device))
        log_probabilities = {name: values.log_softmax(-1).cpu() for name, values in logits.items()}
        scores = [
            _fidelity({name: values[index] for name, values in log_probabilities.items()}, prompt)
            for index, prompt in enumerate(prompts)
        ]
        return np.array(scores, np.float32)


def build_pocket_fidelity(source: str | None, device: str, batch_size: int) -> PocketFidelityScorer:
    """Build the fidelity scorer with the shipped classifier or another. Raises ModelUnavailableError or SetupError."""
    path = Path(source) if source is not None else DEFAULT_WEIGHTS
    torch_device = resolve_device(device)
    with translate_load_errors(str(path)):
        network = AttributeClassifier.load(path).network
    identity = weights.identify("pocket-fidelity", _CODE_VERSION, [path])
    return PocketFidelityScorer(identity, freeze(network, torch_device), torch_device, batch_size)


def crop_to_input(image: PIL.Image.Image) -> Tensor:
    """Crop the middle square, (1, 3, 64, 64), scaled as the classifier's own input is."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    pixels = np.array(image.convert("RGB").crop((left, top, left + side, top + side)))
    tensor = to_network_input(pixels[None])
    assert tensor.shape[-2:] == (INPUT_SIZE, INPUT_SIZE)
    return tensor


def _fidelity(log_probabilities: Mapping[str, Tensor], prompt: str) -> float:
    """The mean log-probability of what the prompt names; `log_probabilities` (number of classes,) for each head."""
    constraints = parse(prompt)
    terms = [
        float(log_probabilities[name][HEADS[name].index(value)])
        for name, value in (
            ("subject", constraints.subject),
            ("colour", constraints.colour),
            ("setting", constraints.setting),
            ("time", constraints.time),
        )
        if value is not None
    ]
    if constraints.subject is not None and constraints.numbers != NUMBERS:
        number_indices = [NUMBERS.index(number) for number in constraints.numbers]
        terms.append(float(log_probabilities["number"][number_indices].logsumexp(0)))
    return sum(terms) / len(terms) if terms else 0.0

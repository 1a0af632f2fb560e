"""Whether a picture of the pocket world shows what its prompt names: the mean log-probability of the named attributes.

The judge is the small network in `pocket/classifiers`, trained on renders only. Of what a prompt can name it reads
subject, colour, setting, time and number; weather, size and place do not count. A prompt that names none of them scores
0 for every picture, which prefers none.

Shapes:  B images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmpo_app.diffusion.devices import resolve_device
from dmpo_app.pocket.classifiers import HEADS, INPUT_SIZE, AttributeClassifier, AttributeNetwork, as_input
from dmpo_app.pocket.language import parse
from dmpo_app.pocket.scenes import NUMBERS
from dmpo_app.scoring import weights
from dmpo_app.scoring.network_loading import explained, frozen
from dmpo_app.scoring.preprocess import in_batches
from dmpo_app.settings import PROJECT_ROOT

SHIPPED = PROJECT_ROOT / "data" / "classifiers" / "attributes.safetensors"

_CODE_VERSION = 1
# The prompts that ship name four attributes that count, on average: a quarter in the mean is one nat of the whole
# reading, so one unit of the log odds that this picture and not the other shows what was asked for.
_SCALE = 0.25


@dataclass(frozen=True, slots=True)
class PocketFidelityScorer:
    """At most 0, which is certainty that everything named is there."""

    identity: str
    network: AttributeNetwork
    device: torch.device
    batch_size: int
    name: str = "pocket-fidelity"
    scale: float = _SCALE

    def score(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> NDArray[np.float32]:
        """As `Scorer.score`. Of images that are not square the middle is judged."""
        return in_batches(self.name, self._judge, images, prompts, self.batch_size)

    @torch.inference_mode()
    def _judge(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> NDArray[np.float32]:
        logits, _ = self.network(torch.cat([_as_input(image) for image in images]).to(self.device))
        log_probabilities = {name: values.log_softmax(-1).cpu() for name, values in logits.items()}
        scores = [
            _fidelity({name: values[index] for name, values in log_probabilities.items()}, prompt)
            for index, prompt in enumerate(prompts)
        ]
        return np.array(scores, np.float32)


def build_pocket_fidelity(source: str | None, device: str, batch_size: int) -> PocketFidelityScorer:
    """With the classifier that ships, or another file of its kind. Raises ModelUnavailable or SetupProblem."""
    path = Path(source) if source is not None else SHIPPED
    where = resolve_device(device)
    with explained(str(path)):
        network = AttributeClassifier.load(path).network
    identity = weights.identify("pocket-fidelity", _CODE_VERSION, [path])
    return PocketFidelityScorer(identity, frozen(network, where), where, batch_size)


def _as_input(image: PIL.Image.Image) -> Tensor:
    """The middle square, (1, 3, 64, 64), scaled as the classifier's own reading of pictures is."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    pixels = np.array(image.convert("RGB").crop((left, top, left + side, top + side)))
    tensor = as_input(pixels[None])
    assert tensor.shape[-2:] == (INPUT_SIZE, INPUT_SIZE)
    return tensor


def _fidelity(log_probabilities: Mapping[str, Tensor], prompt: str) -> float:
    """Mean over what the prompt names; `log_probabilities` (number of classes,) for each head."""
    wish = parse(prompt)
    terms = [
        float(log_probabilities[name][HEADS[name].index(value)])
        for name, value in (
            ("subject", wish.subject),
            ("colour", wish.colour),
            ("setting", wish.setting),
            ("time", wish.time),
        )
        if value is not None
    ]
    if wish.subject is not None and wish.numbers != NUMBERS:
        allowed = [NUMBERS.index(number) for number in wish.numbers]
        terms.append(float(log_probabilities["number"][allowed].logsumexp(0)))
    return sum(terms) / len(terms) if terms else 0.0

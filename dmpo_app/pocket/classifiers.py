"""Attribute classifier of the pocket world: one small network, trained on renders only, that judges the model's images.

It never sees the model's own images in training, so it is a judge and not an accomplice; noise, blur, coarser
copies and shifts of colour in training stand for what the autoencoder and the denoiser do to an image.

Shapes:  B images;  pixels (B, 3, 64, 64) in 0 to 1;  logits (B, number of classes) for each head.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from dmpo_app.pocket.scenes import COLOURS, SETTINGS, SUBJECTS, TIMES

INPUT_SIZE = 64
HEADS: dict[str, tuple[str, ...]] = {
    "subject": SUBJECTS,
    "colour": COLOURS,
    "setting": SETTINGS,
    "time": TIMES,
    "number": ("1", "2", "3"),
}
MEASURES = ("size", "place", "warmth", "brightness")  # as `Scene` has them


@dataclass(frozen=True)
class AttributePredictions:
    """The predicted attributes of B images; every array has length B."""

    subject: NDArray[np.str_]
    colour: NDArray[np.str_]
    setting: NDArray[np.str_]
    time: NDArray[np.str_]
    number: NDArray[np.int64]
    size: NDArray[np.float32]  # as `Scene.size`
    place: NDArray[np.float32]  # as `Scene.place`
    warmth: NDArray[np.float32]  # as `Scene.warmth`; hard to tell from the colours of a sunset
    brightness: NDArray[np.float32]  # as `Scene.brightness`


class AttributeNetwork(nn.Module):
    """The classifier's network: five convolutions down to 4 x 4, then one linear layer a head."""

    def __init__(self) -> None:
        super().__init__()
        channels = (3, 24, 48, 80, 112, 128)
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(itertools.pairwise(channels)):
            layers += [
                nn.Conv2d(before, after, 3, stride=2 if i < 4 else 1, padding=1),
                nn.GroupNorm(8, after),
                nn.SiLU(),
            ]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * 16, 128), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(128, len(values)) for name, values in HEADS.items()})
        self.measures = nn.Linear(128, len(MEASURES))

    def forward(self, pixels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Logits by head, and the measures (B, 4)."""
        features = self.body((pixels - 0.5) * 2)
        return {name: head(features) for name, head in self.heads.items()}, self.measures(features)


class AttributeClassifier:
    """The trained network with the names of its classes."""

    def __init__(self, network: AttributeNetwork) -> None:
        self.network = network.eval()

    @classmethod
    def load(cls, path: Path) -> "AttributeClassifier":
        """Load the classifier from a safetensors file, float16 on disk and float32 in memory."""
        network = AttributeNetwork()
        network.load_state_dict({name: value.float() for name, value in load_file(path).items()})
        return cls(network)

    def save(self, path: Path) -> None:
        """Write the weights as float16 safetensors."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.half().contiguous() for name, value in self.network.state_dict().items()}, path)

    @torch.no_grad()
    def predict(self, images: NDArray[np.uint8], *, batch: int = 64) -> AttributePredictions:
        """Predict the attributes of images uint8 (B, H, W, 3) of any square size from 64 pixels."""
        parts = [self.network(to_network_input(images[i : i + batch])) for i in range(0, len(images), batch)]
        class_indices = {name: torch.cat([logits[name] for logits, _ in parts]).argmax(1).numpy() for name in HEADS}
        measures = torch.cat([measures for _, measures in parts]).numpy()
        labels = {name: np.array(HEADS[name])[class_indices[name]] for name in ("subject", "colour", "setting", "time")}
        values = {name: measures[:, i] for i, name in enumerate(MEASURES)}
        return AttributePredictions(**labels, number=class_indices["number"] + 1, **values)


def to_network_input(images: NDArray[np.uint8]) -> Tensor:
    """Convert images, uint8 (B, H, W, 3), to the network's input, float32 (B, 3, 64, 64) in 0 to 1."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    if pixels.shape[-1] == INPUT_SIZE:
        return pixels
    return functional.interpolate(pixels, size=(INPUT_SIZE, INPUT_SIZE), mode="area")

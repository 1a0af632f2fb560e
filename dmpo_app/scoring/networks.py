"""Networks of scorers: loading them, preprocessing images for them, and the reward head that two of them share.

Images are prepared as OpenAI's CLIP, open_clip and ImageReward do it through torchvision: the shorter side to the
tower's size (bicubic, antialiased, by PIL), the middle square, 0..1, minus the mean, over the deviation. transformers'
image processors compute this with torchvision where it is installed and with PIL where it is not, and the two differ by
more than rounding; a score must not depend on which packages are there.

Both heads were published with their ReLUs commented out, so a head is one linear function; dropout does nothing in
evaluation.

Shapes:  B images;  S the tower's size in pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dmpo_app.errors import ModelUnavailableError, SetupError

Network = TypeVar("Network", bound=nn.Module)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file's tensors by name, float32 on the CPU (integers stay). Raises ModelUnavailableError."""
    with translate_load_errors(str(path)):
        tensors = load_file(path)
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def load_strict(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load a network's state strictly: exactly its own tensors. Raises ModelUnavailableError with what does not fit."""
    expected_shapes = {name: value.shape for name, value in network.state_dict().items()}
    problems = [f"{name} is missing" for name in expected_shapes if name not in tensors]
    problems += [f"{name} is not a part of it" for name in tensors if name not in expected_shapes]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(shape)}"
        for name, shape in expected_shapes.items()
        if name in tensors and tensors[name].shape != shape
    ]
    if problems:
        raise ModelUnavailableError(
            f"the weights in {source} do not fit: {problems[0]}"
            f"{f' (and {len(problems) - 1} more)' if len(problems) > 1 else ''}; are they those of another model?"
        )
    network.load_state_dict(tensors, assign=True)


def load_pretrained(kind: Any, folder: Path, source: str) -> Any:
    """Load a transformers model from its folder, in float32.

    Raises ModelUnavailableError, also when a weight is not in the files: transformers would fill it with random
    numbers.
    """
    with translate_load_errors(source):
        model, report = kind.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    absent = sorted([*report["missing_keys"], *(str(key[0]) for key in report["mismatched_keys"])])
    if absent:
        raise ModelUnavailableError(
            f"{source} is no complete {kind.__name__}: {absent[0]} is not in its weights or does not fit"
        )
    return model


def freeze(network: Network, device: torch.device) -> Network:
    """Move a network to the device, in evaluation mode, without gradients. Raises SetupError when it does not fit."""
    try:
        return network.to(device).eval().requires_grad_(False)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise SetupError(f"the scorer does not fit into the memory of {device}: {error}; use the cpu") from error


@contextmanager
def translate_load_errors(source: str) -> Iterator[None]:
    """Translate errors of reading and building into ModelUnavailableError with advice."""
    try:
        yield
    except (OSError, ValueError, LookupError, AttributeError, TypeError, SafetensorError, RuntimeError) as error:
        raise ModelUnavailableError(
            f"{source} could not be loaded ({type(error).__name__}: {error}); is it complete and of the right kind?"
        ) from error


class RewardHead(nn.Module):
    """The reward head, (B, D) to (B,).

    The layers are numbered as published: 0, 2, 4, 6, 7; dropout stood between the first three.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dimension, 1024),
            nn.Identity(),
            nn.Linear(1024, 128),
            nn.Identity(),
            nn.Linear(128, 64),
            nn.Identity(),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        rewards: Tensor = self.layers(features)
        return rewards.squeeze(-1)


def build_head(tensors: Mapping[str, Tensor], dimension: int, source: str) -> RewardHead:
    """Build the head from `layers.N.weight` and `.bias`. Raises ModelUnavailableError when it takes other features."""
    first = tensors.get("layers.0.weight")
    if first is not None and first.shape[-1] != dimension:
        raise ModelUnavailableError(
            f"the head in {source} takes {first.shape[-1]} features and the model gives {dimension}; "
            "the two do not belong together"
        )
    head = RewardHead(dimension)
    load_strict(head, tensors, source)
    return head


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

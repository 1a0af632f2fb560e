"""The tensors of pairs, read from files when a batch needs them: a data set's size is no matter of memory.

Shapes:  B pairs of a batch;  C H W latent channels, height, width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dmpo_app.diffusion.families.protocol import Conditioning
from dmpo_app.diffusion.tensor_files import load_conditioning, load_latents
from dmpo_app.errors import RoundFailed

KEPT_BYTES = 512 << 20


class TensorFiles(Protocol):
    """Where the bytes named by hashes are; the store's files fit."""

    def read_latents(self, sha256: str) -> bytes: ...

    def read_embeds(self, sha256: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class PairFiles:
    """The hashes of a pair's files."""

    latents_a: str
    latents_b: str
    prompt_embeds: str


class PairTensors:
    """Reads what is asked for and keeps what was used last, up to `kept_bytes`.

    Everything stays in the dtype it was stored in, on the CPU; what comes out is on `device`. Raises RoundFailed when
    the tensors of one batch do not fit together, StudioError when a file is damaged, NotFound when it is gone.
    """

    def __init__(self, files: TensorFiles, *, kept_bytes: int = KEPT_BYTES) -> None:
        self._files = files
        self._kept: OrderedDict[str, Conditioning] = OrderedDict()
        self._room = kept_bytes

    def latents(self, pairs: Sequence[PairFiles], device: torch.device) -> tuple[Tensor, Tensor]:
        """Final latents of images a and b, float32 (B, C, H, W), in the scaled space that the denoiser works in."""
        a, b = (
            _stack([self._latents(sha256).float() for sha256 in side], "latents")
            for side in ([pair.latents_a for pair in pairs], [pair.latents_b for pair in pairs])
        )
        if a.shape != b.shape:
            raise _misfit("latents", {tuple(a.shape[1:]), tuple(b.shape[1:])})
        return a.to(device), b.to(device)

    def conditioning(self, prompts: Sequence[PairFiles | Conditioning], device: torch.device) -> Conditioning:
        """The encoded prompts of pairs, and those that are at hand already; tensors of (B, ...)."""
        found = [
            self._conditioning(prompt.prompt_embeds) if isinstance(prompt, PairFiles) else prompt for prompt in prompts
        ]
        return {name: tensor.to(device) for name, tensor in stack_conditioning(found).items()}

    def _latents(self, sha256: str) -> Tensor:
        return self._keep(sha256, lambda: {"latents": load_latents(self._files.read_latents(sha256))})["latents"]

    def _conditioning(self, sha256: str) -> Conditioning:
        return self._keep(sha256, lambda: load_conditioning(self._files.read_embeds(sha256)))

    def _keep(self, sha256: str, load: Callable[[], Conditioning]) -> Conditioning:
        found = self._kept.get(sha256)
        if found is None:
            found = self._kept[sha256] = load()
            self._room -= _num_bytes(found)
            while self._room < 0 and len(self._kept) > 1:
                self._room += _num_bytes(self._kept.popitem(last=False)[1])
        self._kept.move_to_end(sha256)
        return found


def stack_conditioning(prompts: Sequence[Conditioning]) -> Conditioning:
    """One tensor of (B, ...) for each name. Raises RoundFailed when the prompts' tensors do not fit together."""
    names = {tuple(sorted(prompt)) for prompt in prompts}
    if len(names) > 1:
        raise RoundFailed(f"the votes' encoded prompts hold different tensors {sorted(names)}; was the model changed?")
    stacked: dict[str, Tensor] = {}
    for name in sorted(prompts[0]):
        tensors = [prompt[name] for prompt in prompts]
        same = len({tensor.dtype for tensor in tensors}) == 1  # not after a change of DMPO_RENDER__DTYPE
        stacked[name] = _stack(tensors if same else [tensor.float() for tensor in tensors], "encoded prompts")
    return stacked


def _stack(tensors: Sequence[Tensor], what: str) -> Tensor:
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise _misfit(what, shapes)
    return torch.stack(list(tensors))


def _misfit(what: str, shapes: set[tuple[int, ...]]) -> RoundFailed:
    return RoundFailed(f"the votes' {what} have different shapes {sorted(shapes)}; was the resolution changed?")


def _num_bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())

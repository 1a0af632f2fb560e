"""Cache of the reference errors: the base model's denoising errors, each computed once.

Two numbers a (pair, slot), and slots are fixed, so they are good for as long as the numerics are: at beta 2000 a
reference computed with another batch size or precision moves u by 0.1 to 0.2. What decides the last bits is therefore
part of the cache's key, and another key is another file.
"""

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.io.files import sha256_hex, write_atomically
from dmpo_app.settings import RoundSettings
from dmpo_app.training.data.dataset import PairDataset

Errors = tuple[float, float]
"""The mean squared errors of a pair's image a and image b."""


class ReferenceCache:
    """Cache from (pair id, slot) to the base model's errors on the pair's two images, float32 values."""

    def __init__(self, entries: Mapping[tuple[int, int], Errors] | None = None) -> None:
        self._entries = dict(entries or {})

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def get(self, pair_id: int, slot: int) -> Errors:
        """Get the errors. Raises KeyError when they are not cached."""
        return self._entries[pair_id, slot]

    def add(self, pair_id: int, slot: int, errors: Errors) -> None:
        """Add errors; cached ones stay, so that every step of a round sees the same."""
        self._entries.setdefault((pair_id, slot), errors)

    def entries_after(self, count: int) -> list[tuple[int, int, float, float]]:
        """The entries after the first `count`: pair id, slot, error of image a, error of image b."""
        return [(*key, *errors) for key, errors in islice(self._entries.items(), count, None)]

    def to_tensors(self) -> dict[str, Tensor]:
        """Serialize as tensors: draws (N, 2) int64, pair ids and slots; errors (N, 2) float32, image a and image b."""
        return {
            "draws": torch.tensor(list(self._entries), dtype=torch.int64).reshape(-1, 2),
            "errors": torch.tensor(list(self._entries.values()), dtype=torch.float32).reshape(-1, 2),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        keys: Iterable[list[int]] = tensors["draws"].tolist()
        errors: Iterable[list[float]] = tensors["errors"].tolist()
        return cls({(pair, slot): (a, b) for (pair, slot), (a, b) in zip(keys, errors, strict=True)})

    def save(self, folder: Path, key: str) -> None:
        """Write the cache under its key, atomically. Raises StorageFullError."""
        write_atomically(_path(folder, key), save(self.to_tensors(), {"key": key}))

    @classmethod
    def load(cls, folder: Path, key: str) -> Self:
        """Load the cache of this key; empty when there is none, or none that can be read."""
        try:
            with safe_open(_path(folder, key), framework="pt") as file:
                if (file.metadata() or {}).get("key") != key:
                    return cls()
                return cls.from_tensors({name: file.get_tensor(name) for name in ("draws", "errors")})
        except (FileNotFoundError, SafetensorError):
            return cls()


def cache_key(**numerics: str | int | float | list[int] | list[float]) -> str:
    """Compute the cache's key: the sha256 (hex) of everything that decides the last bits of an error."""
    return sha256_hex(json.dumps(numerics, sort_keys=True).encode())


def numerics_key(
    denoiser: Denoiser,
    dataset: PairDataset,
    settings: RoundSettings,
    *,
    base_fingerprint: str,
    micro_pairs: int,
    compiled_with: LoraSpec | None = None,
) -> str:
    """Compute the cache key of reference errors from all that decides their values to the last bit.

    `compiled_with` is the adapter that a compiled denoiser has, None for an ordinary one.
    """
    device = denoiser.device
    cpu = torch.device("cpu")
    conditioning = {name: list(tensor.shape[1:]) for name, tensor in dataset.conditioning([0], cpu).items()}
    # Only where they are not as usual, so that what was computed before there was a choice is still found.
    non_default: dict[str, str | float | list[float]] = {}
    if settings.timestep_sampling != "uniform":
        non_default["timesteps"] = settings.timestep_sampling
        non_default["timestep_density"] = [settings.timestep_mean, settings.timestep_scale]
    if settings.error_weighting != "none":
        non_default["error_weighting"] = settings.error_weighting
    if settings.caption_dropout > 0:
        non_default["caption_dropout"] = settings.caption_dropout
    if compiled_with is not None:
        non_default["compiled"] = compiled_with.to_metadata()
    return cache_key(
        **non_default,
        base_model=base_fingerprint,
        latents=list(dataset.latents([0], cpu)[0].shape[1:]),
        **conditioning,
        micro_pairs=micro_pairs,
        slots=settings.slots_per_pair,
        slot_seed=settings.seed,
        dtype=f"torch.{denoiser.precision}",
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        cpu=torch.backends.cpu.get_cpu_capability(),
        num_threads=torch.get_num_threads(),
        torch=torch.__version__,
    )


def reference_folder(home: Path) -> Path:
    """The folder of the reference errors in a home."""
    return home / "references"


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key[:16]}.safetensors"

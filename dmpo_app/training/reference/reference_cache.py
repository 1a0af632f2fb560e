"""Denoising errors of the base model, each paid for once.

Two numbers a (pair, slot), and slots are fixed, so they are good for as long as the numerics are: at beta 2000 a
reference computed with another batch size or precision moves u by 0.1 to 0.2. What decides the last bits is therefore
part of the cache's key, and another key is another file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dmpo_app.io import write_atomically

Errors = tuple[float, float]
"""Mean squared errors of a pair's image a and image b."""


class ReferenceCache:
    """(pair id, slot) -> the base model's errors on the pair's two images, float32 values."""

    def __init__(self, entries: Mapping[tuple[int, int], Errors] | None = None) -> None:
        self._entries = dict(entries or {})

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, draw: object) -> bool:
        return draw in self._entries

    def get(self, pair_id: int, slot: int) -> Errors:
        """Raises KeyError when the errors are not known yet."""
        return self._entries[pair_id, slot]

    def add(self, pair_id: int, slot: int, errors: Errors) -> None:
        """Keep the errors; those known already stay, so that every step of a round sees the same."""
        self._entries.setdefault((pair_id, slot), errors)

    def since(self, count: int) -> list[tuple[int, int, float, float]]:
        """What came in after the first `count` entries: pair id, slot, error of image a, error of image b."""
        return [(*draw, *errors) for draw, errors in islice(self._entries.items(), count, None)]

    def to_tensors(self) -> dict[str, Tensor]:
        """draws (N, 2) int64: pair ids and slots; errors (N, 2) float32: image a and image b."""
        return {
            "draws": torch.tensor(list(self._entries), dtype=torch.int64).reshape(-1, 2),
            "errors": torch.tensor(list(self._entries.values()), dtype=torch.float32).reshape(-1, 2),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> ReferenceCache:
        draws: Iterable[list[int]] = tensors["draws"].tolist()
        errors: Iterable[list[float]] = tensors["errors"].tolist()
        return cls({(pair, slot): (a, b) for (pair, slot), (a, b) in zip(draws, errors, strict=True)})

    def save(self, folder: Path, key: str) -> None:
        """Write the cache under its key, atomically. Raises StorageFull."""
        write_atomically(_path(folder, key), save(self.to_tensors(), {"key": key}))

    @classmethod
    def load(cls, folder: Path, key: str) -> ReferenceCache:
        """What was saved under this key; empty when there is nothing, or nothing that can be read."""
        try:
            with safe_open(_path(folder, key), framework="pt") as file:
                if (file.metadata() or {}).get("key") != key:
                    return cls()
                return cls.from_tensors({name: file.get_tensor(name) for name in ("draws", "errors")})
        except (FileNotFoundError, SafetensorError):
            return cls()


def cache_key(**numerics: str | int | float | list[int] | list[float]) -> str:
    """A sha256 (hex) over everything that decides the last bits of an error."""
    return hashlib.sha256(json.dumps(numerics, sort_keys=True).encode()).hexdigest()


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key[:16]}.safetensors"

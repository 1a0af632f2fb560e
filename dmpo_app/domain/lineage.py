"""A base model and the adapter versions made of it.

A *lineage* is one base model in one home: its pairs, votes, rounds and adapter versions. Version 0 is the base model
itself, without an adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

BASE_VERSION = 0


@dataclass(frozen=True, slots=True)
class BaseModelRef:
    """A base model that owns a lineage. `fingerprint` is a sha256 over its configuration and weights."""

    id: int
    source: str
    family: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """The default sampling of a model: denoising steps, and the guidance scale (1 or less: none)."""

    num_steps: int
    guidance: float


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """A published adapter version. `folder` is absolute; `sha256` is of the weights file."""

    version: int
    parent: int
    folder: Path
    sha256: str
    round_id: int
    num_votes: int
    proven: bool
    metrics: Mapping[str, float]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class NewAdapter:
    """An adapter staged on disk, ready to be recorded. `folder_name` is relative to the adapter store."""

    parent: int
    folder_name: str
    sha256: str
    proven: bool
    metrics: Mapping[str, float]
    vote_ids: Sequence[int]

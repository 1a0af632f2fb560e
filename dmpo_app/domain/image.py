"""Images with their provenance, and the base model of the lineage that they belong to.

A *lineage* is one base model in one home: its pairs, votes, rounds and adapter versions. Version 0 is the base model
itself, without an adapter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path


class ImageKind(StrEnum):
    PAIR = "pair"
    RENDER = "render"
    CONTACT_SHEET = "contact_sheet"


class PairSource(StrEnum):
    STARTER = "starter"
    POOL = "pool"
    IMPORT = "import"


@dataclass(frozen=True, slots=True)
class Prompt:
    id: int
    text: str
    held_out: bool


@dataclass(frozen=True, slots=True)
class Provenance:
    """The provenance of an image; enough to make it again. Last bits depend on batch shape, threads and processor."""

    prompt: str
    seed: int
    sampler: str
    num_steps: int
    guidance: float
    adapter_version: int
    strength: float
    batch_size: int
    num_threads: int
    device: str
    dtype: str


@dataclass(frozen=True, slots=True)
class NewImage:
    """A new image to be stored. `png` holds no metadata; `latents` are the bytes of a safetensors file."""

    png: bytes
    width: int
    height: int
    provenance: Provenance
    latents: bytes | None = None


@dataclass(frozen=True, slots=True)
class ImageRef:
    id: int
    sha256: str
    latents_sha256: str | None
    width: int
    height: int
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class NewPair:
    """A new pair: two images of one prompt, or with `more` a set of three or four.

    `prompt_embeds`: bytes of a safetensors file, stored once a prompt.
    """

    prompt: str
    image_a: NewImage
    image_b: NewImage
    prompt_embeds: bytes
    source: PairSource
    more: tuple[NewImage, ...] = ()

    @property
    def images(self) -> tuple[NewImage, ...]:
        return (self.image_a, self.image_b, *self.more)


@dataclass(frozen=True, slots=True)
class Pair:
    id: int
    prompt: str
    image_a: ImageRef
    image_b: ImageRef
    source: PairSource
    adapter_version: int
    more: tuple[ImageRef, ...] = ()
    """Images c and d of a set that is ranked."""


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

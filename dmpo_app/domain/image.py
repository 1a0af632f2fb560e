"""Prompts, images with their provenance, and pairs of images."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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

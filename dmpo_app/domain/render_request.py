"""Requests for images, the renderer that answers them, and GPU minutes that people lend."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, Protocol

from dmpo_app.domain.image import ImageRef


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """Render one prompt and seed once per version, in the order of `versions`."""

    prompt: str
    seed: int
    versions: tuple[int, ...]
    strength: float = 1.0
    num_steps: int | None = None
    guidance: float | None = None


@dataclass(frozen=True, slots=True)
class RenderedImage:
    """What came out; `image.provenance.adapter_version` is the version it was really made with. `withheld`: the model's
    own safety checker flagged it, and the image is black."""

    version: int
    image: ImageRef
    withheld: bool = False


@dataclass(frozen=True, slots=True)
class RendererState:
    """`phase` is 'failed' when the model could not be loaded; then `message` says why and what to do."""

    phase: Literal["starting", "loading", "ready", "failed", "stopped"]
    message: str
    live_version: int | None = None
    pending: int = 0
    device: str | None = None


class Renderer(Protocol):
    """The render thread as the page and the API see it."""

    def submit(self, request: RenderRequest) -> Future[list[RenderedImage]]:
        """Queue a person's request. Raises Busy when the queue is full, NotReady when the model failed to load."""
        ...

    @property
    def state(self) -> RendererState: ...


class GpuLending(Protocol):
    """To be called in the event of a person on the page, on whose quota the GPU is asked for."""

    def lend(self) -> Iterator[str]:
        """Do what is most useful with one GPU minute, saying how it goes every second or two. Raises StudioError."""
        ...

    def render(self, request: RenderRequest) -> list[RenderedImage]:
        """A person's own images, in the order of the versions asked for. Raises StudioError."""
        ...

"""Asking the render thread for images."""

from __future__ import annotations

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

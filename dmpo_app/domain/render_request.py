"""Requests for images, the renderer that answers them, and GPU minutes that people lend."""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, Protocol

from dmpo_app.domain.image import ImageRef
from dmpo_app.domain.limits import MAX_GUIDANCE, MAX_SEED, MAX_STRENGTH
from dmpo_app.errors import BadInputError

MAX_VERSIONS = 8
"""The versions that one request may compare."""
MAX_STEPS = 200
"""The denoising steps of an image."""


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """A request to render one prompt and seed once per version, in the order of `versions`."""

    prompt: str
    seed: int
    versions: tuple[int, ...]
    strength: float = 1.0
    num_steps: int | None = None
    guidance: float | None = None


def check_request(request: RenderRequest) -> None:
    """Raise BadInputError for values that no image can be made of."""
    if not 1 <= len(request.versions) <= MAX_VERSIONS:
        raise BadInputError(f"1 to {MAX_VERSIONS} versions can be compared at once, not {len(request.versions)}")
    if not 0 <= request.seed <= MAX_SEED:
        raise BadInputError(f"a seed of {request.seed} is not between 0 and {MAX_SEED}")
    if not 0 <= request.strength <= MAX_STRENGTH:
        raise BadInputError(f"a strength of {request.strength} is not between 0 and {MAX_STRENGTH}")
    if request.num_steps is not None and not 1 <= request.num_steps <= MAX_STEPS:
        raise BadInputError(f"{request.num_steps} steps are not between 1 and {MAX_STEPS}")
    if request.guidance is not None and not 0 <= request.guidance <= MAX_GUIDANCE:
        raise BadInputError(f"a guidance of {request.guidance} is not between 0 and {MAX_GUIDANCE}")


@dataclass(frozen=True, slots=True)
class RenderedImage:
    """A rendered image; `image.provenance.adapter_version` is the version it was really made with.

    `withheld`: the model's own safety checker flagged it, and the image is black.
    """

    version: int
    image: ImageRef
    withheld: bool = False


@dataclass(frozen=True, slots=True)
class RendererState:
    """The state of the render thread. `phase` 'failed': no model was loaded; `message` says why and what to do."""

    phase: Literal["starting", "loading", "ready", "failed", "stopped"]
    message: str
    live_version: int | None = None
    pending: int = 0
    device: str | None = None


class Renderer(Protocol):
    """The render thread as the page and the API see it."""

    def submit(self, request: RenderRequest) -> Future[list[RenderedImage]]:
        """Queue a person's request.

        Raises BusyError when the queue is full, NotReadyError when the model failed to load.
        """
        ...

    @property
    def state(self) -> RendererState: ...


class ZeroGpuService(Protocol):
    """Training and rendering on ZeroGPU, called in the event of a person on the page, whose quota pays for it."""

    def run_minute(self) -> Iterator[str]:
        """Use one GPU minute for what is most useful; yields a progress message every second or two.

        Raises StudioError.
        """
        ...

    def render(self, request: RenderRequest) -> list[RenderedImage]:
        """Render a person's request; returns the images in the order of its versions. Raises StudioError."""
        ...

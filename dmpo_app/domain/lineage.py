"""A lineage: one base model in one home, its pairs and images, rounds and adapter versions, and requests for images.

Version 0 is the base model itself, without an adapter.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol

from dmpo_app.domain.limits import MAX_GUIDANCE, MAX_SEED, MAX_STRENGTH
from dmpo_app.domain.vote import Outcome
from dmpo_app.errors import BadInputError


class ImageKind(StrEnum):
    PAIR = "pair"
    RENDER = "render"
    CONTACT_SHEET = "contact_sheet"
    JUDGING = "judging"
    """By which the effects of a version are measured: the same held-out prompts and seeds for every version."""


class PairSource(StrEnum):
    STARTER = "starter"
    POOL = "pool"
    IMPORT = "import"
    DUEL = "duel"


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
    """A published adapter version. `folder` is absolute; `sha256` is of the weights file.

    `is_held`: it did not go live when it was published.
    """

    version: int
    parent: int
    folder: Path
    sha256: str
    round_id: int
    num_votes: int
    proven: bool
    metrics: Mapping[str, float]
    created_at: datetime
    is_held: bool = False


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A version that learned from `votes` votes which were taken back since, or count no more for another reason."""

    base_source: str
    version: int
    votes: int
    is_live: bool


@dataclass(frozen=True, slots=True)
class NewAdapter:
    """An adapter staged on disk, ready to be recorded. `folder_name` is relative to the adapter store."""

    parent: int
    folder_name: str
    sha256: str
    proven: bool
    metrics: Mapping[str, float]
    vote_ids: Sequence[int]


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
    """The state of the render thread. `phase` 'failed': no model was loaded; `message` says why and what to do.

    `is_retrying`: it could not be loaded for a reason that passes, and is tried again.
    """

    phase: Literal["starting", "loading", "ready", "failed", "stopped"]
    message: str
    live_version: int | None = None
    pending: int = 0
    device: str | None = None
    is_retrying: bool = False


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


class RoundStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PUBLISHED = "published"
    REFUSED = "refused"
    FAILED = "failed"


class Trigger(StrEnum):
    """The trigger that started a round."""

    VOTES = "votes"
    PERIOD = "period"
    REQUEST = "request"
    WITHDRAWAL = "withdrawal"


@dataclass(frozen=True, slots=True)
class NewPreferences:
    """The live preferences that no finished round has used. Without any, `last_vote_id` is 0, `oldest_at` None."""

    count: int
    last_vote_id: int
    oldest_at: datetime | None


@dataclass(frozen=True, slots=True)
class TrainingVote:
    """A live vote with the files of its pair that training needs; the hashes name files in the store.

    `strength` in [0, 1]: how clear the preference is; 1 unless the annotator was asked and said otherwise. A ranking is
    one vote: `ranking` holds the images of its set by letter, best first, `more_latents` those of images c and d.
    """

    vote_id: int
    pair_id: int
    annotator_id: int
    prompt: str
    outcome: Outcome
    latents_a: str
    latents_b: str
    prompt_embeds: str
    strength: float = 1.0
    ranking: str | None = None
    more_latents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """A pair with the files that scoring and training need; the hashes name files in the store."""

    id: int
    prompt: str
    image_a: int
    image_b: int
    png_a: str
    png_b: str
    latents_a: str
    latents_b: str
    prompt_embeds: str


@dataclass(frozen=True, slots=True)
class RoundState:
    """The stored state of a round. `margin`: the mean u; `accuracy`: the share of pairs with u on the voters' side."""

    id: int
    status: RoundStatus
    trigger: Trigger
    seed: int
    step: int
    steps: int
    loss: float | None
    margin: float | None
    accuracy: float | None
    eta_seconds: float | None
    attempts: int
    num_votes: int
    last_vote_id: int
    parent_version: int
    adapter_version: int | None
    reason: str | None
    config: Mapping[str, Any]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class RoundProgress:
    """The progress of a round at one step.

    `health`: further monitored values by name (see `training.monitoring.early_stopping`).
    """

    step: int
    loss: float
    margin: float
    accuracy: float
    eta_seconds: float
    held_out_loss: float | None = None
    health: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainerState:
    """The state of the trainer process; `message` explains a trainer that does not stay up, or that hangs.

    `running`: it lives and has given a sign of life lately. `phase`: what it says it is at; empty where nobody knows.
    """

    running: bool
    pid: int | None
    restarts: int
    message: str = ""
    phase: str = ""


class TrainerSupervisor(Protocol):
    """Keeps a trainer process alive."""

    @property
    def state(self) -> TrainerState: ...

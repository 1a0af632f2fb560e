"""Frozen values that cross layers, and the protocols through which upper layers reach lower ones.

A *lineage* is one base model in one home: its pairs, votes, rounds and adapter versions. Version 0 is the base model
itself, without an adapter. Times are timezone-aware UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol

BASE_VERSION = 0


class Choice(StrEnum):
    """What a person answered, in the sides they saw."""

    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    SKIP = "skip"


class Outcome(StrEnum):
    """The same answer in terms of the pair's images a and b, whichever side they stood on."""

    A = "a"
    B = "b"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    SKIP = "skip"


PREFERENCES = (Outcome.A, Outcome.B, Outcome.TIE)
"""The outcomes that are trained on and that count towards a round."""


def outcome_of(choice: Choice, *, a_on_left: bool) -> Outcome:
    """Translate the side a person chose into the image they chose."""
    if choice is Choice.LEFT:
        return Outcome.A if a_on_left else Outcome.B
    if choice is Choice.RIGHT:
        return Outcome.B if a_on_left else Outcome.A
    return Outcome(choice.value)


class Question(StrEnum):
    """What was asked about a pair."""

    OVERALL = "overall"


class RoundStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PUBLISHED = "published"
    REFUSED = "refused"
    FAILED = "failed"


class Trigger(StrEnum):
    """Why a round was started."""

    VOTES = "votes"
    PERIOD = "period"
    REQUEST = "request"


class ImageKind(StrEnum):
    PAIR = "pair"
    RENDER = "render"
    CONTACT_SHEET = "contact_sheet"


class PairSource(StrEnum):
    STARTER = "starter"
    POOL = "pool"


@dataclass(frozen=True, slots=True)
class BaseModelRef:
    """A base model that owns a lineage. `fingerprint` is a sha256 over its configuration and weights."""

    id: int
    source: str
    family: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a model's images are usually made: denoising steps, and the guidance scale (1 or less: none)."""

    num_steps: int
    guidance: float


@dataclass(frozen=True, slots=True)
class Prompt:
    id: int
    text: str
    held_out: bool


@dataclass(frozen=True, slots=True)
class Provenance:
    """How an image was made; enough to make it again. The last bits depend on batch shape and thread count."""

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
    """An image about to be stored. `png` holds no metadata; `latents` are the bytes of a safetensors file."""

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
    """Two images of one prompt. `prompt_embeds`: bytes of a safetensors file, stored once a prompt."""

    prompt: str
    image_a: NewImage
    image_b: NewImage
    prompt_embeds: bytes
    source: PairSource


@dataclass(frozen=True, slots=True)
class Pair:
    id: int
    prompt: str
    image_a: ImageRef
    image_b: ImageRef
    source: PairSource
    adapter_version: int


@dataclass(frozen=True, slots=True)
class Annotator:
    id: int
    public_id: str
    handle: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """One showing of one pair to one annotator, issued by the server. `id` is unguessable."""

    id: str
    annotator_id: int
    pair_id: int
    prompt: str
    left_image_id: int
    right_image_id: int
    a_on_left: bool
    question: Question
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class TakenVote:
    """`created` is False when the very same answer had been recorded before."""

    vote_id: int
    created: bool


@dataclass(frozen=True, slots=True)
class TrainingVote:
    """One live vote with what training needs of its pair; the hashes name files in the store.

    `strength` in [0, 1]: how clear the preference is; 1 unless the annotator was asked and said otherwise.
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


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """A pair with what scoring it and training on it need; the hashes name files in the store."""

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
class NewVotes:
    """The live preferences that no finished round has looked at. Without any, `last_vote_id` is 0, `oldest_at` None."""

    count: int
    last_vote_id: int
    oldest_at: datetime | None


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """A published version. `folder` is absolute; `sha256` is of the weights file."""

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


@dataclass(frozen=True, slots=True)
class LiveChange:
    """A version was made live, by an administrator or by the round that published it."""

    version: int
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class RoundState:
    """A round as last recorded. `margin` is the mean u, `accuracy` the share of pairs with u on the voters' side."""

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
    """`health` holds what else is watched while training, by name (see `training.health`)."""

    step: int
    loss: float
    margin: float
    accuracy: float
    eta_seconds: float
    held_out_loss: float | None = None
    health: Mapping[str, float] = field(default_factory=dict)


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
    """What came out; `image.provenance.adapter_version` is the version it was really made with."""

    version: int
    image: ImageRef


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


@dataclass(frozen=True, slots=True)
class TrainerState:
    """The trainer process as its supervisor sees it; `message` explains a trainer that does not stay up."""

    running: bool
    pid: int | None
    restarts: int
    message: str = ""


class TrainerSupervisor(Protocol):
    """Keeps a trainer process alive."""

    @property
    def state(self) -> TrainerState: ...


@dataclass(frozen=True, slots=True)
class StudioStatus:
    """What GET /status answers and the page polls."""

    votes: int
    votes_until_round: int
    pool: int
    live_version: int
    round: RoundState | None
    last_round: RoundState | None
    last_error: str | None

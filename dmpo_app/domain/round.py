"""Training rounds: their votes and pairs, their state and progress, and the trainer process."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from dmpo_app.domain.vote import Outcome


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
    """The state of the trainer process; `message` explains a trainer that does not stay up."""

    running: bool
    pid: int | None
    restarts: int
    message: str = ""


class TrainerSupervisor(Protocol):
    """Keeps a trainer process alive."""

    @property
    def state(self) -> TrainerState: ...

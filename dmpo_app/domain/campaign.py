"""Records of a campaign, its durability policy, and the state of the studio."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from dmpo_app.domain.data_import import EncodingProgress
from dmpo_app.domain.lineage import RoundState


class ReportReason(StrEnum):
    """The reason given for a report of a pair."""

    UNSAFE = "unsafe"
    BROKEN = "broken"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Report:
    """An annotator's report of a pair. `retired_at`: since when the pair is out of the pool, if it is."""

    id: int
    pair_id: int
    annotator: str
    reason: ReportReason
    text: str | None
    at: datetime
    cleared_at: datetime | None
    cleared_by: str | None
    retired_at: datetime | None
    prompt: str
    image_a_id: int
    image_b_id: int


@dataclass(frozen=True, slots=True)
class ConsentAgreement:
    """An annotator's consent to a text. `text_sha256` is of the text as UTF-8; `text` None: it was not stored."""

    text_sha256: str
    version: str
    at: datetime
    text: str | None


@dataclass(frozen=True, slots=True)
class ConsentTextSummary:
    """A consent text with the number of people who agreed to it, and since when."""

    text_sha256: str
    version: str
    first_at: datetime
    num_agreed: int
    text: str | None


@dataclass(frozen=True, slots=True)
class Invite:
    """An invitation: a link that opens a limited number of sessions until a time."""

    public_id: str
    name: str
    max_uses: int
    num_uses: int
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An entry of the audit log: one act of an administrator."""

    id: int
    at: datetime
    actor: str
    act: str
    subject: str


class DurabilityPolicy(Protocol):
    """Durability of votes: checked before a vote is recorded, and awaited before it is acknowledged."""

    @property
    def is_synchronous(self) -> bool:
        """True where `wait_until_durable` may take a while, because an upload is part of it."""

    def check_writable(self) -> None:
        """Raise BackupUnreachableError while what is recorded now might be lost later."""

    def wait_until_durable(self) -> None:
        """Wait until all that was recorded before this call is as durable as the settings promise.

        Raises BackupUnreachableError when that takes too long; what was recorded stays, and asking again is safe.
        """


class LocalDurability:
    """Durability without a backup: a commit to the local disk is enough."""

    is_synchronous = False

    def check_writable(self) -> None:
        """Accept every write: there is no backup that could be out of reach."""

    def wait_until_durable(self) -> None:
        """Return at once: the commit was durable."""


@dataclass(frozen=True, slots=True)
class StudioStatus:
    """The status that GET /status returns. `encoding`: progress on imported pairs, while some have no latents.

    `storage_problem`: why the disk takes no more, or soon will not.
    """

    votes: int
    votes_until_round: int
    pool: int
    live_version: int
    round: RoundState | None
    last_round: RoundState | None
    last_error: str | None
    encoding: EncodingProgress | None = None
    storage_problem: str | None = None

"""How people take part: what they agree to, report, are invited by, and what administrators did."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ReportReason(StrEnum):
    """Why a pair should not be shown."""

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
class Agreement:
    """What an annotator agreed to. `text_sha256` is of the text as UTF-8; None stands for a text that was not kept."""

    text_sha256: str
    version: str
    at: datetime
    text: str | None


@dataclass(frozen=True, slots=True)
class AgreedText:
    """A text that people agreed to, since when, and how many of them."""

    text_sha256: str
    version: str
    first_at: datetime
    num_agreed: int
    text: str | None


@dataclass(frozen=True, slots=True)
class Invite:
    """A link that opens so many sessions until a time."""

    public_id: str
    name: str
    max_uses: int
    num_uses: int
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act of an administrator."""

    id: int
    at: datetime
    actor: str
    act: str
    subject: str

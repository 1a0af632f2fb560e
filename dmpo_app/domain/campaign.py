"""Values of a campaign: consent, reports of pairs, invitations, and the audit log of administrators."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


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

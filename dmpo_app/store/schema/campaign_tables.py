"""Tables of a campaign: reports, consents, invitations, and the audit log."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from dmpo_app.domain.campaign import ReportReason
from dmpo_app.store.schema.base import IS_UNCLEARED, Table, only


class ReportRow(Table):
    """A report that a pair should not be shown. Append-only: clearing it stamps it, once."""

    __tablename__ = "reports"

    id: Mapped[int] = mapped_column(primary_key=True)
    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"))
    pair_id: Mapped[int] = mapped_column(ForeignKey("pairs.id"))
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"))
    reason: Mapped[ReportReason]
    text: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    cleared_at: Mapped[datetime | None]
    cleared_by: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index("uq_reports_one_open", "pair_id", "annotator_id", unique=True, **only(IS_UNCLEARED)),
        Index("ix_reports_base", "base_id", "id"),
    )


class ConsentRow(Table):
    """An annotator's consent to a text. Append-only."""

    __tablename__ = "consents"
    __table_args__ = (UniqueConstraint("annotator_id", "text_sha256", "version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"))
    text_sha256: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime]


class ConsentTextRow(Table):
    """A consent text that somebody agreed to, word for word. Append-only."""

    __tablename__ = "consent_texts"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(32), primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]


class InviteRow(Table):
    """An invitation: a link that opens a limited number of sessions."""

    __tablename__ = "invites"
    __table_args__ = (CheckConstraint("num_uses >= 0 AND num_uses <= max_uses", name="uses"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), unique=True)
    name: Mapped[str] = mapped_column(Text)
    max_uses: Mapped[int]
    num_uses: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class InviteUseRow(Table):
    """A use of an invitation by an annotator."""

    __tablename__ = "invite_uses"

    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"), primary_key=True, autoincrement=False)
    invite_id: Mapped[int] = mapped_column(ForeignKey("invites.id"))


class AuditRow(Table):
    """An entry of the audit log: an administrator's act with actor, subject and time. Append-only."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(Text)
    act: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(Text)

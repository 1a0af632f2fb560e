"""Tables of training: rounds, adapter versions, changes of the live version, and leases."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, String, Text, false
from sqlalchemy.orm import Mapped, mapped_column

from dmpo_app.domain.lineage import RoundStatus, Trigger
from dmpo_app.store.schema.base import IS_UNFINISHED, Table, only


class RoundRow(Table):
    """A training round. `last_vote_id` is its watermark: later votes are new to it."""

    __tablename__ = "rounds"

    id: Mapped[int] = mapped_column(primary_key=True)
    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"))
    status: Mapped[RoundStatus]
    trigger: Mapped[Trigger]
    seed: Mapped[int] = mapped_column(BigInteger, default=0)
    step: Mapped[int] = mapped_column(default=0)
    steps: Mapped[int] = mapped_column(default=0)
    loss: Mapped[float | None]
    margin: Mapped[float | None]
    accuracy: Mapped[float | None]
    eta_seconds: Mapped[float | None]
    attempts: Mapped[int] = mapped_column(default=0)
    num_votes: Mapped[int] = mapped_column(default=0)
    last_vote_id: Mapped[int] = mapped_column(default=0)
    parent_version: Mapped[int] = mapped_column(default=0)
    reason: Mapped[str | None] = mapped_column(Text)
    config: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        ForeignKeyConstraint(["base_id", "parent_version"], ["adapters.base_id", "adapters.version"]),
        Index(
            "uq_rounds_one_at_a_time",
            "base_id",
            unique=True,
            **only(IS_UNFINISHED),
        ),
        Index("ix_rounds_base", "base_id", "status", "id"),
    )


class RoundVoteRow(Table):
    __tablename__ = "round_votes"

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    vote_id: Mapped[int] = mapped_column(ForeignKey("votes.id"), primary_key=True)
    held_out: Mapped[bool]


class RoundProgressRow(Table):
    __tablename__ = "round_progress"

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    loss: Mapped[float]
    margin: Mapped[float]
    accuracy: Mapped[float]
    eta_seconds: Mapped[float]
    held_out_loss: Mapped[float | None]
    created_at: Mapped[datetime]
    health: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")


class AdapterRow(Table):
    """A published version; `folder` is relative to the lineage's adapter folder. Version 0 has no files, no round.

    `is_held`: it did not go live when it was published, but waits until it is proven.
    """

    __tablename__ = "adapters"

    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent: Mapped[int | None]
    folder: Mapped[str | None] = mapped_column(Text)
    sha256: Mapped[str | None] = mapped_column(String(64))
    round_id: Mapped[int | None] = mapped_column(ForeignKey("rounds.id", use_alter=True), unique=True)
    num_votes: Mapped[int] = mapped_column(default=0)
    proven: Mapped[bool] = mapped_column(default=False)
    is_held: Mapped[bool] = mapped_column(default=False, server_default=false())
    metrics: Mapped[dict[str, Any]] = mapped_column(default=dict)
    config: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]

    __table_args__ = (
        ForeignKeyConstraint(["base_id", "parent"], ["adapters.base_id", "adapters.version"]),
        CheckConstraint(
            "version = 0 OR "
            "(parent IS NOT NULL AND folder IS NOT NULL AND sha256 IS NOT NULL AND round_id IS NOT NULL)",
            name="complete",
        ),
    )


class AdapterVoteRow(Table):
    """A vote that an adapter version was trained on."""

    __tablename__ = "adapter_votes"
    __table_args__ = (
        ForeignKeyConstraint(["base_id", "version"], ["adapters.base_id", "adapters.version"]),
        Index("ix_adapter_votes_vote", "vote_id"),
    )

    base_id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    vote_id: Mapped[int] = mapped_column(ForeignKey("votes.id"), primary_key=True)


class LiveChangeRow(Table):
    """A change of the live version; the version of a lineage's last row is the live one."""

    __tablename__ = "live_changes"
    __table_args__ = (
        ForeignKeyConstraint(["base_id", "version"], ["adapters.base_id", "adapters.version"]),
        Index("ix_live_changes_base", "base_id", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"))
    version: Mapped[int]
    by: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]


class LeaseRow(Table):
    """The lease of a lineage for its trainer. The fencing token only grows, and every write of the trainer shows it."""

    __tablename__ = "leases"

    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"), primary_key=True)
    owner: Mapped[str | None] = mapped_column(Text)
    token: Mapped[int]
    lease_seconds: Mapped[float]
    expires_at: Mapped[datetime]

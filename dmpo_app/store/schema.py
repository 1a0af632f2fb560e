"""The tables.

    base_models ─┬─ adapters ─ adapter_votes        annotators ─┐
                 ├─ rounds ─ round_votes, round_progress        │
                 ├─ images ─┐                                   │
    prompts ─────┴──────────┴─ pairs ─ assignments ─ votes ─────┘

A base model owns a lineage: nothing of one refers to anything of another. Version 0 of every lineage is the base model
itself; it has a row, so that whatever names a version can be held to it by a foreign key. Votes, round_votes,
adapter_votes and live_changes are append-only; a vote taken back is stamped.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    Text,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dmpo_app.domain import Choice, ImageKind, Outcome, PairSource, Question, RoundStatus, Trigger
from dmpo_app.store.column_types import EnumText, UTCTime


class AssignmentState(StrEnum):
    """OPEN and REOPENED can be answered; ANSWERED has a live vote; REOPENED had one that was taken back.

    An OPEN one that runs out is LAPSED, and its pair may be shown to the same person again. A REOPENED one is SPENT:
    they have judged that pair, so it never comes back.
    """

    OPEN = "open"
    ANSWERED = "answered"
    REOPENED = "reopened"
    LAPSED = "lapsed"
    SPENT = "spent"


IS_OPEN = "state IN ('open', 'reopened')"
IS_SEEN = "state <> 'lapsed'"
IS_LIVE = "undone_at IS NULL"
IS_UNFINISHED = "status IN ('queued', 'running')"
"""Conditions of partial indexes. Queries spell them the same, without parameters, so that the index is used."""


def _only(condition: str) -> dict[str, Any]:
    """Make an index cover only the rows that meet a condition; both databases spell it alike."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class Table(DeclarativeBase):
    """Names every constraint, so that a migration can name it too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        datetime: UTCTime(),
        dict[str, Any]: JSON(),
        AssignmentState: EnumText(AssignmentState),
        Choice: EnumText(Choice),
        ImageKind: EnumText(ImageKind),
        Outcome: EnumText(Outcome),
        PairSource: EnumText(PairSource),
        Question: EnumText(Question),
        RoundStatus: EnumText(RoundStatus),
        Trigger: EnumText(Trigger),
    }


class BaseModelRow(Table):
    __tablename__ = "base_models"

    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(Text)
    family: Mapped[str] = mapped_column(String(64))
    fingerprint: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]


class PromptRow(Table):
    """The prompts that pairs are made of, and those held out of training. What people type to look at is not here."""

    __tablename__ = "prompts"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(Text, unique=True)
    held_out: Mapped[bool]
    created_at: Mapped[datetime]


class PromptEmbedsRow(Table):
    """The file that holds a prompt's embeddings under one base model."""

    __tablename__ = "prompt_embeds"

    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"), primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))


class ImageRow(Table):
    """An image with all that it takes to make it again. Ids are never used twice, for renders are deleted in time."""

    __tablename__ = "images"
    __table_args__ = (
        ForeignKeyConstraint(["base_id", "adapter_version"], ["adapters.base_id", "adapters.version"]),
        Index("ix_images_base_id_kind_adapter_version", "base_id", "kind", "adapter_version"),
        Index("ix_images_sha256", "sha256"),
        Index("ix_images_latents_sha256", "latents_sha256"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"))
    kind: Mapped[ImageKind]
    sha256: Mapped[str] = mapped_column(String(64))
    latents_sha256: Mapped[str | None] = mapped_column(String(64))
    width: Mapped[int]
    height: Mapped[int]
    prompt: Mapped[str] = mapped_column(Text)
    seed: Mapped[int] = mapped_column(BigInteger)
    sampler: Mapped[str] = mapped_column(String(32))
    num_steps: Mapped[int]
    guidance: Mapped[float]
    adapter_version: Mapped[int]
    strength: Mapped[float]
    batch_size: Mapped[int]
    num_threads: Mapped[int]
    device: Mapped[str] = mapped_column(String(64))
    dtype: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]


class PairRow(Table):
    """Two images of one prompt.

    `num_votes`: its live votes. `num_taken`: live votes and open assignments together, which is what orders the pairs
    that are offered; answering moves a pair's claim from one kind to the other and leaves this number alone.
    """

    __tablename__ = "pairs"

    id: Mapped[int] = mapped_column(primary_key=True)
    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"))
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"))
    image_a_id: Mapped[int] = mapped_column(ForeignKey("images.id"), unique=True)
    image_b_id: Mapped[int] = mapped_column(ForeignKey("images.id"), unique=True)
    source: Mapped[PairSource]
    adapter_version: Mapped[int] = mapped_column()
    num_votes: Mapped[int] = mapped_column(default=0)
    num_taken: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]

    __table_args__ = (
        ForeignKeyConstraint(["base_id", "adapter_version"], ["adapters.base_id", "adapters.version"]),
        CheckConstraint("num_votes >= 0 AND num_taken >= num_votes", name="counts"),
        CheckConstraint("image_a_id <> image_b_id", name="two_images"),
        Index("ix_pairs_offer", base_id, num_taken, adapter_version.desc(), id),
        Index("ix_pairs_unjudged", base_id, num_votes, adapter_version),
        Index("ix_pairs_prompt", base_id, prompt_id),
    )


class AnnotatorRow(Table):
    """A session of a person. The handle is a name they chose, not a credential: several may share one."""

    __tablename__ = "annotators"

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), unique=True)
    handle: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]


class AssignmentRow(Table):
    """One showing of a pair to one annotator. `opened_at`: when it was issued, or reopened by taking a vote back."""

    __tablename__ = "assignments"

    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(String(32), unique=True)
    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"))
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"))
    pair_id: Mapped[int] = mapped_column(ForeignKey("pairs.id"))
    question: Mapped[Question]
    a_on_left: Mapped[bool]
    state: Mapped[AssignmentState]
    created_at: Mapped[datetime]
    opened_at: Mapped[datetime]
    expires_at: Mapped[datetime]

    __table_args__ = (
        Index(
            "uq_assignments_seen_once",
            "annotator_id",
            "pair_id",
            unique=True,
            **_only(IS_SEEN),
        ),
        Index(
            "ix_assignments_open",
            "expires_at",
            "pair_id",
            **_only(IS_OPEN),
        ),
        Index(
            "ix_assignments_open_of",
            "annotator_id",
            "base_id",
            **_only(IS_OPEN),
        ),
        Index("ix_assignments_pair", "pair_id"),
    )


class VoteRow(Table):
    """One answer. Append-only: taking it back stamps `undone_at`, once; a trigger refuses anything else."""

    __tablename__ = "votes"

    id: Mapped[int] = mapped_column(primary_key=True)
    assignment_id: Mapped[int] = mapped_column(ForeignKey("assignments.id"))
    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"))
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"))
    pair_id: Mapped[int] = mapped_column(ForeignKey("pairs.id"))
    choice: Mapped[Choice]
    outcome: Mapped[Outcome]
    elapsed_ms: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    undone_at: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "uq_votes_one_live",
            "assignment_id",
            unique=True,
            **_only(IS_LIVE),
        ),
        Index(
            "ix_votes_live",
            "base_id",
            "outcome",
            "id",
            **_only(IS_LIVE),
        ),
        Index(
            "ix_votes_live_of",
            "annotator_id",
            "id",
            **_only(IS_LIVE),
        ),
    )


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
            **_only(IS_UNFINISHED),
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


class AdapterRow(Table):
    """A published version; `folder` is relative to the lineage's adapter folder. Version 0 has no files, no round."""

    __tablename__ = "adapters"

    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent: Mapped[int | None]
    folder: Mapped[str | None] = mapped_column(Text)
    sha256: Mapped[str | None] = mapped_column(String(64))
    round_id: Mapped[int | None] = mapped_column(ForeignKey("rounds.id", use_alter=True), unique=True)
    num_votes: Mapped[int] = mapped_column(default=0)
    proven: Mapped[bool] = mapped_column(default=False)
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
    """Exactly which votes a version was trained on."""

    __tablename__ = "adapter_votes"
    __table_args__ = (ForeignKeyConstraint(["base_id", "version"], ["adapters.base_id", "adapters.version"]),)

    base_id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    vote_id: Mapped[int] = mapped_column(ForeignKey("votes.id"), primary_key=True)


class LiveChangeRow(Table):
    """Which version was made live, when and by whom; the last row of a lineage is the one that is."""

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
    """Who may train a lineage. The token only grows; whoever writes as the trainer shows it and it must be this one."""

    __tablename__ = "leases"

    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"), primary_key=True)
    owner: Mapped[str | None] = mapped_column(Text)
    token: Mapped[int]
    lease_seconds: Mapped[float]
    expires_at: Mapped[datetime]

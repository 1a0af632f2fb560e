"""Tables of judging: duels between versions, studies, verdicts about versions, and effects on their images."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, ForeignKeyConstraint, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from dmpo_app.domain.judging import Evidence, Verdict, VerdictAction
from dmpo_app.store.schema.base import Table


def _version(column: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["base_id", column], ["adapters.base_id", "adapters.version"])


class StudyRow(Table):
    """A human study between two versions: `num_pairs` duels, each judged by `num_raters` people on `questions`.

    `closed_at`: offered to nobody since then.
    """

    __tablename__ = "studies"
    __table_args__ = (UniqueConstraint("base_id", "name"), _version("version_a"), _version("version_b"))

    id: Mapped[int] = mapped_column(primary_key=True)
    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"))
    name: Mapped[str] = mapped_column(String(80))
    version_a: Mapped[int]
    version_b: Mapped[int]
    questions: Mapped[list[str]] = mapped_column(JSON())
    num_raters: Mapped[int]
    num_pairs: Mapped[int]
    created_by: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]


class DuelRow(Table):
    """A duel: a pair whose image a was made by one version and image b, of the same prompt and seed, by another.

    Its pair has the source `duel`, is not offered by itself and never trained on; its votes are judgements. `study_id`:
    the study it belongs to, if any.
    """

    __tablename__ = "duels"
    __table_args__ = (
        _version("version_a"),
        _version("version_b"),
        Index("ix_duels_versions", "base_id", "version_a", "version_b", "pair_id"),
        Index("ix_duels_study", "study_id", "pair_id"),
    )

    pair_id: Mapped[int] = mapped_column(ForeignKey("pairs.id"), primary_key=True, autoincrement=False)
    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"))
    version_a: Mapped[int]
    version_b: Mapped[int]
    study_id: Mapped[int | None] = mapped_column(ForeignKey("studies.id"))


class VerdictRow(Table):
    """A verdict about a version against another one, what it rests on, and what was done. Append-only."""

    __tablename__ = "verdicts"
    __table_args__ = (
        _version("version"),
        _version("other_version"),
        Index("ix_verdicts_version", "base_id", "version", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"))
    version: Mapped[int]
    other_version: Mapped[int]
    verdict: Mapped[Verdict]
    evidence: Mapped[Evidence]
    action: Mapped[VerdictAction]
    numbers: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class VersionEffectsRow(Table):
    """The effects of a version on images, measured against another version's of the same held-out prompts and seeds."""

    __tablename__ = "version_effects"
    __table_args__ = (_version("version"), _version("other_version"))

    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    other_version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    effects: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]

"""Tables of imports: the origin of pairs and votes that were not made here."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from dmpo_app.domain.data_import import ImportUse
from dmpo_app.store.schema.base import Table


class ImportRow(Table):
    """An import of a data set, complete or not.

    `bookmark`: where the next batch of rows begins, `counts`: of the rows before it; both change with the batch, in its
    transaction.
    """

    __tablename__ = "imports"
    __table_args__ = (UniqueConstraint("base_id", "fingerprint", "format", "use", "source"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"))
    fingerprint: Mapped[str] = mapped_column(String(64))
    format: Mapped[str] = mapped_column(String(32))
    use: Mapped[ImportUse]
    source: Mapped[str] = mapped_column(Text)
    bookmark: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    counts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    is_complete: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]


class ImportedPairRow(Table):
    """An imported pair.

    `content_key`: the sha256 of its prompt and image files, so that it is stored once; `sha256_a`: of the file that
    became image a. `origin`: metadata of the two images at the source.
    """

    __tablename__ = "imported_pairs"
    __table_args__ = (UniqueConstraint("base_id", "content_key"), Index("ix_imported_pairs_import", "import_id"))

    pair_id: Mapped[int] = mapped_column(ForeignKey("pairs.id"), primary_key=True, autoincrement=False)
    base_id: Mapped[int] = mapped_column(ForeignKey("base_models.id"))
    import_id: Mapped[int] = mapped_column(ForeignKey("imports.id"))
    source_row: Mapped[str] = mapped_column(Text)
    content_key: Mapped[str] = mapped_column(String(64))
    sha256_a: Mapped[str] = mapped_column(String(64))
    origin: Mapped[dict[str, Any]]


class ImportedVoteRow(Table):
    """An imported vote. `given_at`: when, if the source says so; the vote's own time is that of the import."""

    __tablename__ = "imported_votes"

    vote_id: Mapped[int] = mapped_column(ForeignKey("votes.id"), primary_key=True, autoincrement=False)
    import_id: Mapped[int] = mapped_column(ForeignKey("imports.id"))
    source_row: Mapped[str] = mapped_column(Text)
    given_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_imported_votes_import", "import_id"),)


class ImportLeftOutRow(Table):
    """A row, or a pair of it, that an import left out."""

    __tablename__ = "import_left_out"

    import_id: Mapped[int] = mapped_column(ForeignKey("imports.id"), primary_key=True)
    source_row: Mapped[str] = mapped_column(String(80), primary_key=True)
    reason: Mapped[str] = mapped_column(Text)

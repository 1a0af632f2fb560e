"""Tables of a campaign: prompts, imports, consents, invitations, reports, the log of administrators' acts."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from dmpo_app.domain.campaign import ReportReason
from dmpo_app.domain.data_import import ImportUse
from dmpo_app.domain.prompt import MAX_TAG, PromptSource
from dmpo_app.store.schema.base import IS_UNCLEARED, Table, only


class PromptRow(Table):
    """A prompt for pairs, or one held out of training. Prompts that people type for a render are not stored here.

    `folded`: the text as `domain.prompt.fold` has it. Prompts with the same are twins, and triggers refuse a pair of a
    prompt that is held out or has a twin that is, and to hold a prompt out that has pairs or a twin with pairs.
    `retired_at`: since when no new pairs are made of it. `placed_at`: when its side was changed by hand; the lists of
    the settings say nothing about its side any more.
    """

    __tablename__ = "prompts"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(Text, unique=True)
    held_out: Mapped[bool]
    created_at: Mapped[datetime]
    folded: Mapped[str] = mapped_column(Text, server_default="")
    source: Mapped[PromptSource] = mapped_column(default=PromptSource.LIST, server_default="list")
    retired_at: Mapped[datetime | None]
    placed_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_prompts_folded", "folded"),)


class PromptTagRow(Table):
    __tablename__ = "prompt_tags"

    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"), primary_key=True)
    tag: Mapped[str] = mapped_column(String(MAX_TAG), primary_key=True)

    __table_args__ = (Index("ix_prompt_tags_tag", "tag"),)


class PromptProposalRow(Table):
    """A proposal of a prompt by an annotator."""

    __tablename__ = "prompt_proposals"

    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"), primary_key=True)
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"))
    created_at: Mapped[datetime]

    __table_args__ = (Index("ix_prompt_proposals_annotator", "annotator_id", "created_at"),)


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


class ReportRow(Table):
    """A report that a pair should not be shown. Append-only: clearing and confirming it stamp it, once each.

    `network`: a keyed hash of the network it came from, where that is known.
    """

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
    network: Mapped[str | None] = mapped_column(String(16))
    confirmed_at: Mapped[datetime | None]
    confirmed_by: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index("uq_reports_one_open", "pair_id", "annotator_id", unique=True, **only(IS_UNCLEARED)),
        Index("ix_reports_base", "base_id", "id"),
        Index("ix_reports_of", "annotator_id", "pair_id"),
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


class HomeRow(Table):
    """The home that a PostgreSQL database belongs to: one row. In a SQLite file, which lies in its home, there is none.

    `identity`: made of the home's key, so that a home may move. `place`: where it was last, for people to read.
    """

    __tablename__ = "home"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    identity: Mapped[str] = mapped_column(String(64))
    place: Mapped[str] = mapped_column(Text)
    claimed_at: Mapped[datetime]


class AuditRow(Table):
    """An entry of the audit log: an administrator's act with actor, subject and time. Append-only."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(Text)
    act: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(Text)

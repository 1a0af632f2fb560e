"""Tables of prompts, their tags, and annotators' proposals."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from dmpo_app.domain.prompt import MAX_TAG, PromptSource
from dmpo_app.store.schema.base import Table


class PromptRow(Table):
    """A prompt for pairs, or one held out of training. Prompts that people type for a render are not stored here.

    `folded`: the text as `prompt_text.fold` has it. Prompts with the same are twins, and triggers refuse a pair of a
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

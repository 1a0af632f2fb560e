"""Bodies and answers of the routes about prompts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from dmpo_app.domain.prompt import ImportPlan, PromptEntry, PromptSource, RefusedPrompt
from dmpo_app.domain.prompt_text import MAX_PROMPT, MAX_TAG
from dmpo_app.web.api_models import INT64_MAX, PlainText

MAX_EDITED = 500
MAX_REFUSED_SHOWN = 200

PromptId = Annotated[int, Field(strict=True, ge=0, le=INT64_MAX)]
Tag = Annotated[PlainText, Field(strict=True, min_length=1, max_length=MAX_TAG)]


class PromptOut(BaseModel):
    id: int
    text: str
    held_out: bool
    source: PromptSource = Field(description="list: a file of the settings; import; annotator: somebody's own.")
    retired: bool = Field(description="No new pairs are made of it.")
    tags: list[str]
    pairs: int
    votes: int
    created_at: datetime

    @classmethod
    def of(cls, prompt: PromptEntry) -> PromptOut:
        return cls(
            id=prompt.id,
            text=prompt.text,
            held_out=prompt.held_out,
            source=prompt.source,
            retired=prompt.retired_at is not None,
            tags=list(prompt.tags),
            pairs=prompt.num_pairs,
            votes=prompt.num_votes,
            created_at=prompt.created_at,
        )


class PromptsAnswer(BaseModel):
    prompts: list[PromptOut] = Field(description="The newest first.")
    total: int = Field(description="How many meet the conditions.")
    more: bool = Field(description="There are older ones; ask again with `before` = the last id.")
    training: int
    held_out: int
    retired: int
    tags: dict[str, int] = Field(description="Prompts of each tag, over all prompts.")


class RefusedOut(BaseModel):
    row: int = Field(description="Line or record of the file, from 1; with /prompts/edit the prompt's id.")
    text: str
    reason: str
    like: str = Field(description="The prompt it is too close to, if that is why.")

    @classmethod
    def of(cls, row: RefusedPrompt) -> RefusedOut:
        return cls(row=row.row, text=row.text, reason=row.reason.value, like=row.like)


class ImportAnswer(BaseModel):
    dry_run: bool
    new: int
    held_out: int = Field(description="Of the new ones.")
    known: int = Field(description="There already; they get the tags.")
    refused: dict[str, int] = Field(description="Rows by reason.")
    rows: list[RefusedOut] = Field(description=f"The refused ones, {MAX_REFUSED_SHOWN} at most.")

    @classmethod
    def of(cls, plan: ImportPlan, *, dry_run: bool) -> ImportAnswer:
        return cls(
            dry_run=dry_run,
            new=len(plan.new),
            held_out=plan.num_held_out,
            known=len(plan.known),
            refused={reason.value: count for reason, count in plan.count_refused().items()},
            rows=[RefusedOut.of(row) for row in plan.refused[:MAX_REFUSED_SHOWN]],
        )


class EditBody(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"prompts": [12, 15], "act": "tag", "tag": "animals"}]})

    prompts: Annotated[list[PromptId], Field(min_length=1, max_length=MAX_EDITED)]
    act: Literal["retire", "restore", "tag", "untag", "hold_out", "train"] = Field(
        description="hold_out and train move prompts to a side of the split."
    )
    tag: Tag | None = Field(default=None, description="With tag and untag.")


class EditAnswer(BaseModel):
    done: int = Field(description="Prompts that are as asked for now.")
    refused: list[RefusedOut] = Field(description="Prompts that could not change sides.")


class ProposalBody(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "a lighthouse in a storm"}]})

    text: Annotated[str, Field(strict=True, max_length=MAX_PROMPT)]


class ProposalAnswer(BaseModel):
    text: str = Field(description="As it is kept.")
    created: bool = Field(description="False: the campaign had it already.")


class SuggestionOut(BaseModel):
    text: str
    held_out: bool = Field(description="The model never trained on it.")


class SuggestionsAnswer(BaseModel):
    suggestions: list[SuggestionOut]

"""Prompts as they are managed: what is known of each, what an import comes to, what is refused and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class PromptSource(StrEnum):
    """Where a prompt came from. LIST: the text files of the settings, or a pair that was stored."""

    LIST = "list"
    IMPORT = "import"
    ANNOTATOR = "annotator"


class Refusal(StrEnum):
    """Why a prompt was not taken. The values are words for people."""

    EMPTY = "empty"
    NOT_TEXT = "not text"
    TOO_LONG = "too long"
    CONTROL_CHARACTERS = "control characters"
    BLOCKED = "blocked"
    DUPLICATE = "duplicate"
    NEAR_HELD_OUT = "near duplicate of a held-out prompt"
    NEAR_TRAINING = "near duplicate of a training prompt"
    HAS_PAIRS = "has pairs already"


@dataclass(frozen=True, slots=True)
class NewPrompt:
    """A prompt that may be stored: tidied, and folded as `prompt_text.fold` does."""

    text: str
    folded: str
    held_out: bool
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KnownPrompt:
    """What new prompts are compared with."""

    id: int
    text: str
    folded: str
    held_out: bool


@dataclass(frozen=True, slots=True)
class PromptsState:
    """Stands for all prompts and their sides: equal states, equal prompts."""

    last_id: int
    num_held_out: int
    last_placed: datetime | None


@dataclass(frozen=True, slots=True)
class PromptSnapshot:
    """All prompts, or one side of them, at one moment."""

    state: PromptsState
    prompts: Sequence[KnownPrompt]


@dataclass(frozen=True, slots=True)
class RefusedPrompt:
    """A row that was not taken. `row` counts from 1, by lines or records of the file; `like`: the prompt it is too
    close to."""

    row: int
    text: str
    reason: Refusal
    like: str = ""


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What an import would do: prompts to add, prompts that are there already and get the tags, rows refused."""

    new: Sequence[NewPrompt]
    known: Sequence[KnownPrompt]
    refused: Sequence[RefusedPrompt]

    @property
    def num_held_out(self) -> int:
        """Of the new ones."""
        return sum(prompt.held_out for prompt in self.new)

    def count_refused(self) -> dict[Refusal, int]:
        """By reason, in the order of the reasons; those that occur."""
        counts = {reason: sum(row.reason is reason for row in self.refused) for reason in Refusal}
        return {reason: count for reason, count in counts.items() if count}


@dataclass(frozen=True, slots=True)
class PromptEntry:
    """A prompt with what became of it. `num_pairs` and `num_votes` (live ones) are of one lineage."""

    id: int
    text: str
    held_out: bool
    source: PromptSource
    retired_at: datetime | None
    created_at: datetime
    tags: tuple[str, ...]
    num_pairs: int
    num_votes: int


@dataclass(frozen=True, slots=True)
class PromptQuery:
    """Which prompts to list; None is no condition. `search`: beginnings of words, folded, all of them.
    `before`: only ids below it, since the newest come first."""

    search: tuple[str, ...] = ()
    tag: str | None = None
    held_out: bool | None = None
    retired: bool | None = None
    before: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class PromptPage:
    """`total`: how many meet the query's conditions, whatever `before` and `limit`."""

    prompts: Sequence[PromptEntry]
    total: int


@dataclass(frozen=True, slots=True)
class PromptCounts:
    """Over all prompts of a home. `tags`: prompts of each."""

    num_training: int
    num_held_out: int
    num_retired: int
    tags: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SuggestedPrompt:
    text: str
    held_out: bool

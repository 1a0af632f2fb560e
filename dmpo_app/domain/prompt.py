"""Prompts: their records, and their text as it is compared.

Two prompts are *twins* when they fold to the same text, and *near duplicates* when the words they are made of overlap
enough: the Jaccard similarity of their sets of words, |A ∩ B| / |A ∪ B|, 1 for twins.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

MAX_PROMPT = 1000
"""Characters of the longest prompt anywhere in the studio."""
MAX_TAG = 40

_ACCENTS = re.compile("[\u0300-\u036f]")
_ARTICLES = frozenset({"a", "an", "the"})
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def tidy(text: str) -> str:
    """The text as it is stored: composed characters (NFC), every run of white space one blank, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def has_control_characters(text: str) -> bool:
    """Whether it holds characters no prompt needs: controls but for white space, half characters, and marks that turn
    the direction of writing, which make a text look like another one."""
    return any(
        (unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r") or character in _DIRECTIONS
        for character in text
    )


def fold(text: str) -> str:
    """The text without what makes no difference: case, width, accents, punctuation, invisible characters.

    Never empty unless the text is: a text without a single word stands for itself.
    """
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFKD", plain)))
    return " ".join("".join(map(_letter, plain)).split()) or " ".join(text.casefold().split())


def words_of(folded: str) -> frozenset[str]:
    """The set of words a folded text is compared by: all but the English articles, unless there are no others."""
    words = frozenset(folded.split())
    return words - _ARTICLES or words


def similarity(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard similarity of two sets of words, 0 to 1."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if shared else 0.0


def clean_tag(name: str) -> str:
    """A tag as it is stored: folded words joined by hyphens, at most `MAX_TAG` characters; empty for no word at all."""
    words = [word for word in fold(name).split() if word[0].isalnum()]
    return "-".join(words)[:MAX_TAG].rstrip("-")


def _letter(character: str) -> str:
    """A character as it counts for words: itself, nothing when it is invisible, or a blank."""
    if "\u3040" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff":
        return f" {character} "  # Chinese and Japanese have no spaces: each character stands for itself
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    return character if character.isalnum() or category.startswith("M") else " "


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

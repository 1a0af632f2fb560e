"""Prompts: their records, and their text as it is compared.

Two prompts are *twins* when they fold to the same text, and *near duplicates* when the words they are made of overlap
enough: the Jaccard similarity of their sets of words, |A ∩ B| / |A ∪ B|, 1 for twins.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

MAX_PROMPT = 1000
"""Characters of the longest prompt anywhere in the studio."""
MAX_TAG = 40

_ACCENTS = re.compile("[\u0300-\u036f\u20d0-\u20f0]")
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""What Unicode lets a font leave out (Default_Ignorable_Code_Point), beside the controls of format."""
_ARTICLES = frozenset({"a", "an", "the"})
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def normalize_text(text: str) -> str:
    """Normalize a text for storage: composed characters (NFC), every run of white space one blank, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def has_control_characters(text: str) -> bool:
    """True for a text with control characters, which no prompt needs.

    These are controls but for white space, half characters, and marks that turn the direction of writing, which make a
    text pass for another one.
    """
    return any(
        (unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r") or character in _DIRECTIONS
        for character in text
    )


def fold(text: str) -> str:
    """Fold a text for comparison: without case, width, accents, punctuation and invisible characters.

    Never empty unless nothing of the text can be seen: a text without a single word stands for itself.
    """
    visible = _INVISIBLE.sub("", text)
    plain = unicodedata.normalize("NFKD", visible).casefold()
    plain = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFKD", plain)))
    return " ".join("".join(map(_fold_character, plain)).split()) or " ".join(visible.casefold().split())


def word_set(folded: str) -> frozenset[str]:
    """The set of words a folded text is compared by: all but the English articles, unless there are no others."""
    words = frozenset(folded.split())
    return words - _ARTICLES or words


def jaccard_similarity(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard similarity of two sets of words, 0 to 1."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if shared else 0.0


def clean_tag(name: str) -> str:
    """Normalize a tag: folded words joined by hyphens, at most `MAX_TAG` characters; empty for no word at all."""
    words = [word for word in fold(name).split() if word[0].isalnum()]
    return "-".join(words)[:MAX_TAG].rstrip("-")


def _fold_character(character: str) -> str:
    """Fold one character: itself, nothing when it is invisible, or a blank."""
    if "\u3040" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff":
        return f" {character} "  # Chinese and Japanese have no spaces: each character stands for itself
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    return character if character.isalnum() or category.startswith("M") else " "


class PromptSource(StrEnum):
    """The source of a prompt. LIST: the text files of the settings, or a pair that was stored."""

    LIST = "list"
    IMPORT = "import"
    ANNOTATOR = "annotator"


class Refusal(StrEnum):
    """The reason for refusing a prompt. The values are words for people."""

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
    """A new prompt to be stored: normalized, and folded as `fold` does."""

    text: str
    folded: str
    held_out: bool
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredPrompt:
    """A stored prompt, as new prompts are compared with it."""

    id: int
    text: str
    folded: str
    held_out: bool


@dataclass(frozen=True, slots=True)
class PromptsState:
    """A state of all prompts and their sides, for optimistic locking: equal states, equal prompts."""

    last_id: int
    num_held_out: int
    last_placed: datetime | None


@dataclass(frozen=True, slots=True)
class PromptSnapshot:
    """A snapshot of all prompts, or of one side of them."""

    state: PromptsState
    prompts: Sequence[StoredPrompt]


@dataclass(frozen=True, slots=True)
class RefusedPrompt:
    """A refused row of an import.

    `row` counts from 1, by lines or records of the file; `similar_prompt`: the prompt it is too close to.
    """

    row: int
    text: str
    reason: Refusal
    similar_prompt: str = ""


@dataclass(frozen=True, slots=True)
class PromptImportPlan:
    """The plan of a prompt import: prompts to add, stored prompts that get the tags, rows refused."""

    new_prompts: Sequence[NewPrompt]
    stored_prompts: Sequence[StoredPrompt]
    refusals: Sequence[RefusedPrompt]

    @property
    def num_held_out(self) -> int:
        """Number of new prompts that are held out."""
        return sum(prompt.held_out for prompt in self.new_prompts)

    def count_refused(self) -> dict[Refusal, int]:
        """Count the refused rows by reason, in the order of the reasons; only those that occur."""
        counts = {reason: sum(row.reason is reason for row in self.refusals) for reason in Refusal}
        return {reason: count for reason, count in counts.items() if count}


@dataclass(frozen=True, slots=True)
class PromptEntry:
    """An entry of the prompt catalog. `num_pairs` and `num_votes` (live ones) are of one lineage."""

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
    """A query of the prompt catalog; None is no condition.

    `search`: beginnings of words, folded, all of them. `before`: only ids below it, since the newest come first.
    """

    search: tuple[str, ...] = ()
    tag: str | None = None
    held_out: bool | None = None
    retired: bool | None = None
    before: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class PromptPage:
    """A page of the prompt catalog. `total`: matches of the query's conditions, whatever `before` and `limit`."""

    prompts: Sequence[PromptEntry]
    total: int


@dataclass(frozen=True, slots=True)
class PromptCounts:
    """Counts over all prompts of a home. `tags`: prompts of each."""

    num_training: int
    num_held_out: int
    num_retired: int
    tags: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SuggestedPrompt:
    text: str
    held_out: bool

"""Who was shown which pair, and what they answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Choice(StrEnum):
    """What a person answered, in the sides they saw."""

    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    SKIP = "skip"


class Outcome(StrEnum):
    """The same answer in terms of the pair's images a and b, whichever side they stood on."""

    A = "a"
    B = "b"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    SKIP = "skip"


PREFERENCES = (Outcome.A, Outcome.B, Outcome.TIE)
"""The outcomes that are trained on and that count towards a round."""


def outcome_of(choice: Choice, *, a_on_left: bool) -> Outcome:
    """Translate the side a person chose into the image they chose."""
    if choice is Choice.LEFT:
        return Outcome.A if a_on_left else Outcome.B
    if choice is Choice.RIGHT:
        return Outcome.B if a_on_left else Outcome.A
    return Outcome(choice.value)


class Question(StrEnum):
    """What was asked about a pair."""

    OVERALL = "overall"


@dataclass(frozen=True, slots=True)
class Annotator:
    id: int
    public_id: str
    handle: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """One showing of one pair to one annotator, issued by the server. `id` is unguessable."""

    id: str
    annotator_id: int
    pair_id: int
    prompt: str
    left_image_id: int
    right_image_id: int
    a_on_left: bool
    question: Question
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class TakenVote:
    """`created` is False when the very same answer had been recorded before."""

    vote_id: int
    created: bool

"""Votes and rankings.

A set is a pair with further images: a and b, then c and d. Orders are kept as the letters of the images, "cab"; people
see and answer places, 0 the first that is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dmpo_app.errors import BadInput


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
    """What was asked about a pair: which image is better overall, looks better, or fits the prompt better."""

    OVERALL = "overall"
    APPEAL = "appeal"
    FIT = "fit"


class Strength(StrEnum):
    """How clear a preference for one side is, where the person says."""

    SLIGHTLY = "slightly"
    CLEARLY = "clearly"


STRENGTHS: Mapping[Strength | None, float] = {None: 1.0, Strength.SLIGHTLY: 0.5, Strength.CLEARLY: 1.0}
"""What a strength counts in a target, see `objective.targets.graded_win`; one that was not given counts in full."""


@dataclass(frozen=True, slots=True)
class Annotator:
    """`signed_in`: a provider vouched for them, in whatever browser they are; else they are whoever has their token."""

    id: int
    public_id: str
    handle: str
    signed_in: bool = False


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
    more_image_ids: tuple[int, ...] = ()
    """Of a set to be ranked: the images shown after the first two, which are `left_image_id` and `right_image_id`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person says of what they were shown: a choice with what goes with it, or the `order` of a set's images,
    as the places they stood at, 0 the first, best first."""

    choice: Choice | None = None
    strength: Strength | None = None
    comment: str | None = None
    order: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class TakenVote:
    """`created` is False when the very same answer had been recorded before. `new_preferences`: how many stand with it
    that no finished round has looked at, counted as far as was asked."""

    vote_id: int
    created: bool
    new_preferences: int = 0


@dataclass(frozen=True, slots=True)
class VoteRecord:
    """A vote as its own annotator may see it. `versions`: those of its base model that were trained on it."""

    vote_id: int
    prompt: str
    question: Question
    choice: Choice
    strength: Strength | None
    comment: str | None
    elapsed_ms: int
    at: datetime
    undone_at: datetime | None
    withdrawn_at: datetime | None
    left_image_id: int
    right_image_id: int
    versions: tuple[int, ...]
    more_image_ids: tuple[int, ...] = ()
    order: tuple[int, ...] | None = None
    """Of a ranking: the places, 0 the first that was shown, best first."""


@dataclass(frozen=True, slots=True)
class VoteCounts:
    """An annotator's votes: those that stand, in all and by question, those taken back and those withdrawn."""

    live: int
    undone: int
    withdrawn: int
    by_question: Mapping[Question, int]


LETTERS = "abcd"
PAIR_SIZE = 2
MAX_SET = len(LETTERS)


def order_of_places(order: Sequence[int], arrangement: str) -> str:
    """The images by letter, best first, from the places they were shown at.

    Raises BadInput unless every place is named once.
    """
    size = len(arrangement)
    if sorted(order) != list(range(size)):
        raise BadInput(
            f"an order of {size} images names each of the places 0 to {size - 1} once, best first; this one is "
            f"{list(order)}"
        )
    return "".join(arrangement[place] for place in order)


def places_of_order(ranking: str, arrangement: str) -> tuple[int, ...]:
    """The places, best first, at which the images of an order were shown."""
    return tuple(arrangement.index(letter) for letter in ranking)


def better_of_first_two(ranking: str) -> Outcome:
    """Which of images a and b an order puts first: the one comparison that a ranking counts as where pairs do."""
    return Outcome.A if ranking.index("a") < ranking.index("b") else Outcome.B


def side_of(outcome: Outcome, *, a_on_left: bool) -> Choice:
    """The side that image a or b stood on."""
    return Choice.LEFT if (outcome is Outcome.A) == a_on_left else Choice.RIGHT

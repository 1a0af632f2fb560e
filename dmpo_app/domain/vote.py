"""Votes and rankings.

A set is a pair with further images: a and b, then c and d. Orders are stored as the images' letters, "cab"; people
see and order places, 0 the first that is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dmpo_app.errors import BadInputError


class Choice(StrEnum):
    """The choice of a person, in terms of the sides they saw."""

    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    SKIP = "skip"


class Outcome(StrEnum):
    """The outcome of a vote in terms of the pair's images a and b, whichever side they stood on."""

    A = "a"
    B = "b"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    SKIP = "skip"


PREFERENCES = (Outcome.A, Outcome.B, Outcome.TIE)
"""The outcomes that are trained on and that count towards a round."""


def outcome_from_choice(choice: Choice, *, a_on_left: bool) -> Outcome:
    """Translate the side a person chose into the image they chose."""
    if choice is Choice.LEFT:
        return Outcome.A if a_on_left else Outcome.B
    if choice is Choice.RIGHT:
        return Outcome.B if a_on_left else Outcome.A
    return Outcome(choice.value)


class Question(StrEnum):
    """The question about a pair: which image is better overall, is more appealing, or fits the prompt better."""

    OVERALL = "overall"
    APPEAL = "appeal"
    FIT = "fit"


class Strength(StrEnum):
    """The strength of a preference for one side, where the person says."""

    SLIGHTLY = "slightly"
    CLEARLY = "clearly"


STRENGTHS: Mapping[Strength | None, float] = {None: 1.0, Strength.SLIGHTLY: 0.5, Strength.CLEARLY: 1.0}
"""What a strength counts in a target, see `objective.targets.graded_win`; one that was not given counts in full."""


@dataclass(frozen=True, slots=True)
class Annotator:
    """An annotator. `signed_in`: a provider vouched for them, in any browser; else they are whoever has their token."""

    id: int
    public_id: str
    handle: str
    signed_in: bool = False


@dataclass(frozen=True, slots=True)
class Assignment:
    """An assignment: one pair issued to one annotator by the server, to vote on. `id` is unguessable."""

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
class SubmittedVote:
    """A vote as a person submits it: a choice with strength and comment, or a ranking.

    `order`: of a set's images, the places they stood at, 0 the first, best first.
    """

    choice: Choice | None = None
    strength: Strength | None = None
    comment: str | None = None
    order: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class RecordedVote:
    """A recorded vote. `is_new` is False when the very same vote had been recorded before.

    `new_preferences`: live preferences, this one included, that no finished round has used, up to a limit.
    """

    vote_id: int
    is_new: bool
    new_preferences: int = 0


@dataclass(frozen=True, slots=True)
class VoteRecord:
    """A vote for its own annotator to see. `versions`: those of its base model that were trained on it."""

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
    """Counts of an annotator's votes: live ones, in all and by question, undone and withdrawn ones."""

    live: int
    undone: int
    withdrawn: int
    by_question: Mapping[Question, int]


LETTERS = "abcd"
PAIR_SIZE = 2
MAX_SET = len(LETTERS)


def ranking_from_places(order: Sequence[int], arrangement: str) -> str:
    """The ranking by letter, best first, from the places at which the images were shown.

    Raises BadInputError unless every place is named once.
    """
    size = len(arrangement)
    if sorted(order) != list(range(size)):
        raise BadInputError(
            f"an order of {size} images names each of the places 0 to {size - 1} once, best first; this one is "
            f"{list(order)}"
        )
    return "".join(arrangement[place] for place in order)


def places_from_ranking(ranking: str, arrangement: str) -> tuple[int, ...]:
    """The places, best first, at which the images of a ranking were shown."""
    return tuple(arrangement.index(letter) for letter in ranking)


def outcome_from_ranking(ranking: str) -> Outcome:
    """The outcome between images a and b of a ranking: the one comparison it counts as where pairs do."""
    return Outcome.A if ranking.index("a") < ranking.index("b") else Outcome.B


def choice_from_outcome(outcome: Outcome, *, a_on_left: bool) -> Choice:
    """The choice, left or right, that stands for image a or b."""
    return Choice.LEFT if (outcome is Outcome.A) == a_on_left else Choice.RIGHT

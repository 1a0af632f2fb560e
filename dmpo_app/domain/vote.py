"""Votes and rankings, and the values by which an annotator's next pair is chosen.

A set is a pair with further images: a and b, then c and d. Orders are stored as the images' letters, "cab"; people
see and order places, 0 the first that is shown.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

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


class Purpose(StrEnum):
    """The purpose of an assignment: a vote to learn from, a repeat, a gold pair, or a duel.

    A repeat shows whether a person votes alike, a gold pair whether they vote right, a duel which of two versions they
    prefer. Only votes on the first kind are trained on. Nothing that an annotator can see tells the kinds apart.
    """

    VOTE = "vote"
    REPEAT = "repeat"
    GOLD = "gold"
    DUEL = "duel"


class AssignmentKind(StrEnum):
    """The kind of assignments that a person asks for: pairs, with whatever is mixed in among them, or duels alone."""

    LABEL = "label"
    DUELS = "duels"


class CandidateFeature(StrEnum):
    """A feature of a candidate that a strategy may ask for, beside its age; see the fields of `Candidate`."""

    MARGIN = "margin"
    SCORES = "scores"
    PROMPT_VOTES = "prompt_votes"
    WINS = "wins"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pair that an annotator may be assigned. Features not asked for, or not known, are at their defaults.

    num_taken: live votes and open assignments, of every question. margin: the policy's u at beta = 1, of the newest
    version it was computed for. scores: by scorer, how much better image a scores than b, in standard deviations among
    the candidates. prompt_votes: live votes on all pairs of its prompt. wins: live votes for a, for b, and ties, on
    every question.
    """

    pair_id: int
    prompt_id: int
    adapter_version: int
    num_taken: int
    margin: float | None = None
    scores: tuple[float, ...] = ()
    prompt_votes: int = 0
    wins: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Overlap: every `every`-th pair goes to `people` people; pairs that somebody has begun are candidates first."""

    every: int
    people: int


class Strategy(Protocol):
    """A selection strategy: an order of candidates.

    They come in the store's own order: fewest taken first, then the newest version, then the oldest pair; keep it
    among equals.
    """

    @property
    def required_features(self) -> frozenset[CandidateFeature]: ...

    @property
    def overlap(self) -> Overlap | None: ...

    def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:
        """Sort the candidates; the one to be assigned first is at the front."""
        ...


@dataclass(frozen=True, slots=True)
class AssignmentRules:
    """The rules by which pairs are assigned to an annotator.

    strategy: None leaves the store's own order. assignments_per_pair: live votes and open assignments that a pair has
    at most, on each question; None: any number. gold_rate, repeat_rate: the share of assignments that are of gold
    pairs, and of pairs that the annotator voted on at least `repeat_after` votes ago, with the sides swapped.
    num_images: 2 for pairs, 3 or 4 for sets to be ranked; all assignments are of one size, so that none stands out.
    duel_rate: the share of assignments that are duels of the versions compared now, while there are any; of pairs
    alone, and where the overall question is asked. duels_only: nothing but duels, those of the study `study_id`, or of
    the versions compared now.
    """

    strategy: Strategy | None = None
    assignments_per_pair: int | None = None
    gold_rate: float = 0.0
    repeat_rate: float = 0.0
    repeat_after: int = 20
    num_images: int = 2
    duel_rate: float = 0.0
    duels_only: bool = False
    study_id: int | None = None

    def mixes_duels(self, questions: Sequence[Question]) -> bool:
        """True when duels may be among the assignments of these questions."""
        return self.duel_rate > 0 and self.num_images == PAIR_SIZE and Question.OVERALL in questions

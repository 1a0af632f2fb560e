"""Pair selection: the values that a strategy and the store exchange to choose an annotator's next pair."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Purpose(StrEnum):
    """The purpose of an assignment: a vote to learn from, a repeat, or a gold pair.

    A repeat shows whether a person votes alike, a gold pair whether they vote right. Only votes on the first kind are
    trained on. Nothing that an annotator can see tells the kinds apart.
    """

    VOTE = "vote"
    REPEAT = "repeat"
    GOLD = "gold"


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
    """

    strategy: Strategy | None = None
    assignments_per_pair: int | None = None
    gold_rate: float = 0.0
    repeat_rate: float = 0.0
    repeat_after: int = 20
    num_images: int = 2

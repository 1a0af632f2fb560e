"""Which pair an annotator is shown next, in values that a strategy and the store exchange."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Purpose(StrEnum):
    """What a showing is for: to learn from, to see whether a person answers alike, or whether they answer right.

    Only votes on the first kind are trained on. Nothing that an annotator can see tells the kinds apart.
    """

    VOTE = "vote"
    REPEAT = "repeat"
    GOLD = "gold"


class Fact(StrEnum):
    """What a strategy may know of a candidate beside its age; see the fields of `Candidate`."""

    MARGIN = "margin"
    SCORES = "scores"
    PROMPT_VOTES = "prompt_votes"
    WINS = "wins"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pair that an annotator may be shown. Facts that were not asked for, or are not known, are at their defaults.

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
    """Every `every`-th pair is wanted by `people` people; those that somebody has begun are candidates first."""

    every: int
    people: int


class Strategy(Protocol):
    """An order of candidates. They come in the store's own: fewest taken first, then the newest version, then the
    oldest pair; keep it among equals."""

    @property
    def needs(self) -> frozenset[Fact]: ...

    @property
    def overlap(self) -> Overlap | None: ...

    def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:
        """All of `candidates`, the one to be shown first at the front."""
        ...


@dataclass(frozen=True, slots=True)
class Offering:
    """How pairs are chosen for an annotator.

    strategy: None leaves the store's own order. showings_per_pair: live votes and open assignments that a pair has at
    most, on each question; None: any number. gold_rate, repeat_rate: the share of showings that are of gold pairs, and
    of pairs that the annotator judged at least `repeat_after` votes ago, with the sides swapped. num_images: 2 for
    pairs, 3 or 4 for sets to be ranked; all showings are of one size, so that none stands out.
    """

    strategy: Strategy | None = None
    showings_per_pair: int | None = None
    gold_rate: float = 0.0
    repeat_rate: float = 0.0
    repeat_after: int = 20
    num_images: int = 2

"""Votes as plain arrays, which is what all statistics here are computed from.

Shapes:  N votes;  K annotators;  P pairs;  C = 4 answers that say something (skip says nothing).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dmpo_app.domain.vote import Outcome

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ANSWERS = (Outcome.A, Outcome.B, Outcome.TIE, Outcome.BOTH_BAD)
A, B, TIE, BOTH_BAD = range(4)
SKIPPED = 4
"""Codes of answers; skip stands outside `ANSWERS`."""
NOT_GOLD = -1

_CODES = {outcome: code for code, outcome in enumerate((*ANSWERS, Outcome.SKIP))}


class Answered(Protocol):
    """What is asked of a vote that is to be weighed."""

    @property
    def annotator_id(self) -> int: ...
    @property
    def pair_id(self) -> int: ...
    @property
    def outcome(self) -> Outcome: ...


class Judged(Answered, Protocol):
    """What is asked of a vote that is to be looked at from every side."""

    @property
    def a_on_left(self) -> bool: ...
    @property
    def elapsed_ms(self) -> int: ...


@dataclass(frozen=True, slots=True)
class VoteArrays:
    """N votes in the order they were given. Annotators and pairs are numbered from 0.

    annotator: (N,) in 0..K-1. pair: (N,) in 0..P-1. answer: (N,) a code of `ANSWERS`, or SKIPPED.
    a_on_left: (N,). elapsed_ms: (N,) from showing to answer; 0 was not told.
    gold: (N,) the code of the right answer where one is known, else NOT_GOLD.
    repeat: (N,) whether the same annotator had judged the same pair before.
    annotator_ids: the K annotators' ids, by number.
    """

    annotator: Ints
    pair: Ints
    answer: Ints
    a_on_left: Bools
    elapsed_ms: Ints
    gold: Ints
    repeat: Bools
    annotator_ids: tuple[int, ...]
    num_pairs: int

    @classmethod
    def of(cls, votes: Sequence[Judged], gold: Mapping[int, Outcome] | None = None) -> VoteArrays:
        """From votes in the order they were given; `gold` names the right answer of some pairs, by pair id."""
        known = gold or {}
        annotators, annotator = numbered([vote.annotator_id for vote in votes])
        pairs, pair = numbered([vote.pair_id for vote in votes])
        right = [_CODES[known[vote.pair_id]] if vote.pair_id in known else NOT_GOLD for vote in votes]
        return cls(
            annotator=annotator,
            pair=pair,
            answer=np.array([_CODES[vote.outcome] for vote in votes], np.int64),
            a_on_left=np.array([vote.a_on_left for vote in votes], np.bool_),
            elapsed_ms=np.array([vote.elapsed_ms for vote in votes], np.int64),
            gold=np.array(right, np.int64),
            repeat=~first_of_each(annotator, pair),
            annotator_ids=annotators,
            num_pairs=len(pairs),
        )

    @property
    def num_annotators(self) -> int:
        return len(self.annotator_ids)

    @property
    def says_something(self) -> Bools:
        """(N,) every answer but a skip."""
        return np.not_equal(self.answer, SKIPPED)

    @property
    def decided(self) -> Bools:
        """(N,) one of the two images was preferred."""
        return np.isin(self.answer, (A, B))

    @property
    def chose_left(self) -> Bools:
        """(N,) the image on the left was preferred."""
        on_the_left: Bools = (self.answer == A) == self.a_on_left
        return self.decided & on_the_left

    @property
    def independent(self) -> Bools:
        """(N,) what agreement is measured on: answers, one for each annotator and pair. Gold pairs are left out, since
        they were picked for being easy."""
        return self.says_something & ~self.repeat & np.equal(self.gold, NOT_GOLD)

    def per_annotator(self, which: Bools) -> Ints:
        """(K,) how many of the votes marked in `which` (N,) each annotator gave."""
        return np.bincount(self.annotator[which], minlength=self.num_annotators).astype(np.int64)


def first_of_each(annotator: Ints, pair: Ints) -> Bools:
    """(N,) whether a vote is the first that its annotator gave on its pair."""
    first = np.zeros(len(annotator), np.bool_)
    if len(annotator):
        _, places = np.unique(np.stack([annotator, pair]), axis=1, return_index=True)
        first[places] = True
    return first


def numbered(ids: Sequence[int]) -> tuple[tuple[int, ...], Ints]:
    """The distinct ids in ascending order, and each id's place among them, (N,)."""
    distinct, places = np.unique(np.array(ids, np.int64), return_inverse=True)
    return tuple(int(one) for one in distinct), places.astype(np.int64)


Z = NormalDist().inv_cdf(0.975)
"""All intervals are two-sided and of 95 %."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Share:
    """`successes` of `trials`, as a share with its 95 % interval. Without trials there is none: all three are None."""

    successes: int
    trials: int
    value: float | None
    low: float | None
    high: float | None


def share_of(successes: int, trials: int, *, effective_trials: float | None = None) -> Share:
    """Wilson's score interval (1927), which stays within [0, 1] and holds for few trials and for shares near 0 or 1.

    `effective_trials`: how many independent trials these are worth, where they are not independent.
    """
    if trials == 0:
        return Share(0, 0, None, None, None)
    p, n = successes / trials, float(trials if effective_trials is None else effective_trials)
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return Share(successes, trials, p, max(0.0, middle - half), min(1.0, middle + half))


def clustered_share(successes_K: Ints, trials_K: Ints) -> Share:
    """The share over all annotators together, for votes of one annotator are not independent of each other.

    Wilson's interval for trials / deff independent ones, where the design effect deff (Kish 1965), at least 1, is the
    cluster-robust variance of the share, K / (K - 1) sum_k (x_k - p n_k)^2 / n^2, over the one of independent votes.
    """
    successes, trials = int(successes_K.sum()), int(trials_K.sum())
    taking_part = trials_K > 0
    count = int(taking_part.sum())
    if trials == 0 or count < 2 or successes in (0, trials):
        return share_of(successes, trials)
    p = successes / trials
    deviations = (successes_K - p * trials_K)[taking_part]
    clustered = count / (count - 1) * float((deviations**2).sum()) / trials**2
    design_effect = max(1.0, clustered / (p * (1 - p) / trials))
    return share_of(successes, trials, effective_trials=trials / design_effect)


def benjamini_hochberg(p_values: Floats) -> Floats:
    """(K,) adjusted p-values: calling all below q noteworthy makes, on average, at most a share q of the calls wrong.

    The step-up procedure of Benjamini and Hochberg (1995). NaN, where nothing was tested, stays NaN and does not count.
    """
    adjusted = np.full(p_values.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    if tested.size:
        ordered = tested[np.argsort(p_values[tested], kind="stable")]
        scaled = p_values[ordered] * tested.size / np.arange(1, tested.size + 1)
        adjusted[ordered] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted

"""Votes as arrays, from which all statistics of quality are computed.

Shapes:  N votes;  K annotators;  P pairs;  C = 4 outcomes that are no skips.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from dmpo_app.domain.vote import Outcome

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

OUTCOMES = (Outcome.A, Outcome.B, Outcome.TIE, Outcome.BOTH_BAD)
A, B, TIE, BOTH_BAD = range(4)
SKIPPED = 4
"""Codes of outcomes; skip stands outside `OUTCOMES`."""
NOT_GOLD = -1

_CODES = {outcome: code for code, outcome in enumerate((*OUTCOMES, Outcome.SKIP))}


class OutcomeVote(Protocol):
    """The fields of a vote that weighing needs."""

    @property
    def annotator_id(self) -> int: ...
    @property
    def pair_id(self) -> int: ...
    @property
    def outcome(self) -> Outcome: ...


class DetailedVote(OutcomeVote, Protocol):
    """The fields of a vote that the quality report needs."""

    @property
    def a_on_left(self) -> bool: ...
    @property
    def elapsed_ms(self) -> int: ...


@dataclass(frozen=True, slots=True)
class VoteArrays:
    """Arrays of N votes in the order they were given. Annotators and pairs are numbered from 0.

    annotator: (N,) in 0..K-1. pair: (N,) in 0..P-1. outcome: (N,) a code of `OUTCOMES`, or SKIPPED.
    a_on_left: (N,). elapsed_ms: (N,) from assignment to vote; 0: unknown.
    gold: (N,) the code of the right outcome of a gold pair, else NOT_GOLD.
    repeat: (N,) True where the same annotator had voted on the same pair before.
    annotator_ids: the K annotators' ids, by number.
    """

    annotator: Ints
    pair: Ints
    outcome: Ints
    a_on_left: Bools
    elapsed_ms: Ints
    gold: Ints
    repeat: Bools
    annotator_ids: tuple[int, ...]
    num_pairs: int

    @classmethod
    def from_votes(cls, votes: Sequence[DetailedVote], gold: Mapping[int, Outcome] | None = None) -> Self:
        """Arrays of votes in the order they were given; `gold`: the right outcome of gold pairs, by pair id."""
        gold_outcomes = gold or {}
        annotators, annotator = number_ids([vote.annotator_id for vote in votes])
        pairs, pair = number_ids([vote.pair_id for vote in votes])
        gold_codes = [
            _CODES[gold_outcomes[vote.pair_id]] if vote.pair_id in gold_outcomes else NOT_GOLD for vote in votes
        ]
        return cls(
            annotator=annotator,
            pair=pair,
            outcome=np.array([_CODES[vote.outcome] for vote in votes], np.int64),
            a_on_left=np.array([vote.a_on_left for vote in votes], np.bool_),
            elapsed_ms=np.array([vote.elapsed_ms for vote in votes], np.int64),
            gold=np.array(gold_codes, np.int64),
            repeat=~is_first_vote(annotator, pair),
            annotator_ids=annotators,
            num_pairs=len(pairs),
        )

    @property
    def num_annotators(self) -> int:
        return len(self.annotator_ids)

    @property
    def is_not_skip(self) -> Bools:
        """(N,) mask of all votes but skips."""
        return np.not_equal(self.outcome, SKIPPED)

    @property
    def is_decided(self) -> Bools:
        """(N,) mask of the votes for one of the two images."""
        return np.isin(self.outcome, (A, B))

    @property
    def chose_left(self) -> Bools:
        """(N,) mask of the votes for the image on the left."""
        on_the_left: Bools = (self.outcome == A) == self.a_on_left
        return self.is_decided & on_the_left

    @property
    def is_independent(self) -> Bools:
        """(N,) mask of the votes that agreement is measured on: no skips, one for each annotator and pair.

        Gold pairs are left out, since they were picked for being easy.
        """
        return self.is_not_skip & ~self.repeat & np.equal(self.gold, NOT_GOLD)

    def per_annotator(self, mask: Bools) -> Ints:
        """(K,) count the votes marked in `mask` (N,) by annotator."""
        return np.bincount(self.annotator[mask], minlength=self.num_annotators).astype(np.int64)


def is_first_vote(annotator: Ints, pair: Ints) -> Bools:
    """(N,) mask of the votes that are the first of their annotator on their pair."""
    first = np.zeros(len(annotator), np.bool_)
    if len(annotator):
        _, places = np.unique(np.stack([annotator, pair]), axis=1, return_index=True)
        first[places] = True
    return first


def number_ids(ids: Sequence[int]) -> tuple[tuple[int, ...], Ints]:
    """The distinct ids in ascending order, and each id's place among them, (N,)."""
    distinct, places = np.unique(np.array(ids, np.int64), return_inverse=True)
    return tuple(int(one) for one in distinct), places.astype(np.int64)


Z = NormalDist().inv_cdf(0.975)
"""The normal quantile of a two-sided interval of 95 %."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Share:
    """A share, `successes` of `trials`, with its 95 % interval. Without trials all three values are None."""

    successes: int
    trials: int
    value: float | None
    low: float | None
    high: float | None


def wilson_share(successes: int, trials: int, *, effective_trials: float | None = None) -> Share:
    """A share with Wilson's score interval (1927), which holds for few trials and for shares near 0 or 1.

    `effective_trials`: how many independent trials these are worth, where they are not independent.
    """
    if trials == 0:
        return Share(0, 0, None, None, None)
    p, n = successes / trials, float(trials if effective_trials is None else effective_trials)
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return Share(successes, trials, p, max(0.0, middle - half), min(1.0, middle + half))


def clustered_share(successes_K: Ints, trials_K: Ints) -> Share:
    """The share over all annotators with a cluster-robust interval: votes of one annotator are not independent.

    Wilson's interval for trials / deff independent ones, where the design effect deff (Kish 1965), at least 1, is the
    cluster-robust variance of the share, K / (K - 1) sum_k (x_k - p n_k)^2 / n^2, over the one of independent votes.
    """
    successes, trials = int(successes_K.sum()), int(trials_K.sum())
    has_trials = trials_K > 0
    count = int(has_trials.sum())
    if trials == 0 or count < 2 or successes in (0, trials):
        return wilson_share(successes, trials)
    p = successes / trials
    deviations = (successes_K - p * trials_K)[has_trials]
    clustered = count / (count - 1) * float((deviations**2).sum()) / trials**2
    design_effect = max(1.0, clustered / (p * (1 - p) / trials))
    return wilson_share(successes, trials, effective_trials=trials / design_effect)


def benjamini_hochberg(p_values: Floats) -> Floats:
    """(K,) adjusted p-values: of all called significant below q, on average at most a share q is called so wrongly.

    The step-up procedure of Benjamini and Hochberg (1995). NaN, where nothing was tested, stays NaN and does not count.
    """
    adjusted = np.full(p_values.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    if tested.size:
        ordered = tested[np.argsort(p_values[tested], kind="stable")]
        scaled = p_values[ordered] * tested.size / np.arange(1, tested.size + 1)
        adjusted[ordered] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted

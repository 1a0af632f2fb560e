"""Shares with their intervals, and p-values of many annotators looked at together.

Shapes:  K annotators.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from dmpo_app.labeling.quality.quality_votes import Floats, Ints

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

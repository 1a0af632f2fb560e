"""Win rates of one version over another by scores, and mean differences, with intervals clustered by prompt.

    win rate = (wins + 0.5 ties) / n        over n pairs of images, each of one prompt and one seed

The pairs of one prompt resemble one another, so prompts and not pairs are what is drawn anew in thought: the variance
of a mean over pairs is that of its prompts' sums (the cluster-robust variance with its factor m / (m - 1); Liang and
Zeger 1986). Quantiles are Student's with m - 1 degrees of freedom.

Shapes:  n pairs;  m prompts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Values = NDArray[np.float64]
Clusters = NDArray[np.int64]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval; `low` and `high` are None with fewer than two prompts."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ScorerVerdict:
    """The comparison of two versions by one scorer; differences are new minus old."""

    wins: int
    ties: int
    losses: int
    win_rate: Estimate
    difference: Estimate
    mean_new: float
    mean_old: float


def compare(new: Values, old: Values, prompts: Clusters, *, confidence: float = CONFIDENCE) -> ScorerVerdict:
    """Compare the scores, (n,), of two versions on the same prompts and seeds; `prompts` numbers each pair's prompt.

    Scores that are equal are a tie. Raises ValueError for no pairs, or arrays of different lengths.
    """
    if not len(new) or not len(new) == len(old) == len(prompts):
        raise ValueError(f"{len(new)} and {len(old)} scores of {len(prompts)} pairs are no comparison")
    differences = new - old
    outcomes = (np.sign(differences) + 1) / 2
    return ScorerVerdict(
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
        win_rate=estimate_rate(outcomes, prompts, confidence=confidence),
        difference=estimate_mean(differences, prompts, confidence=confidence),
        mean_new=float(new.mean()),
        mean_old=float(old.mean()),
    )


def estimate_mean(values: Values, prompts: Clusters, *, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of values, (n,), with its interval."""
    mean, variance, num_prompts = _mean_and_variance(values, prompts)
    if num_prompts < 2:
        return Estimate(mean, None, None)
    half = _quantile(confidence, num_prompts) * float(np.sqrt(variance))
    return Estimate(mean, mean - half, mean + half)


def estimate_rate(outcomes: Values, prompts: Clusters, *, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of outcomes in [0, 1], (n,), with Wilson's interval for the number of judgements that they are worth.

    That number is p (1 - p) over the variance of the mean: smaller than n where the pairs of a prompt agree. It is
    taken as n at most, although ties would make it larger, and as m where all outcomes are alike. So an interval has
    a width even at 100 %, where the plain one has none.
    """
    rate, variance, num_prompts = _mean_and_variance(outcomes, prompts)
    if num_prompts < 2:
        return Estimate(rate, None, None)
    spread = rate * (1 - rate)
    if spread == 0:
        judgements = float(num_prompts)
    else:
        judgements = float(len(outcomes)) if variance == 0 else min(spread / variance, float(len(outcomes)))
    squared = _quantile(confidence, num_prompts) ** 2
    middle = (rate + squared / (2 * judgements)) / (1 + squared / judgements)
    half = np.sqrt(squared * (spread / judgements + squared / (4 * judgements**2))) / (1 + squared / judgements)
    return Estimate(rate, max(0.0, float(middle - half)), min(1.0, float(middle + half)))


def _mean_and_variance(values: Values, prompts: Clusters) -> tuple[float, float, int]:
    """The mean of values, the variance of that mean, and the number of prompts."""
    _, cluster_indices = np.unique(prompts, return_inverse=True)
    num_prompts = int(cluster_indices.max()) + 1
    mean = float(values.mean())
    if num_prompts < 2:
        return mean, 0.0, num_prompts
    sums = np.bincount(cluster_indices, weights=values - mean)
    variance = num_prompts / (num_prompts - 1) * float((sums**2).sum()) / len(values) ** 2
    return mean, variance, num_prompts


def _quantile(confidence: float, num_prompts: int) -> float:
    """Student's quantile of a two-sided interval with m - 1 degrees of freedom."""
    return float(stdtrit(num_prompts - 1, (1 + confidence) / 2))


def verdict_as_json(verdict: ScorerVerdict) -> Mapping[str, object]:
    """A verdict as plain values; the interval of an estimate is [low, high], or None."""

    def interval(estimate: Estimate) -> list[float] | None:
        return None if estimate.low is None or estimate.high is None else [estimate.low, estimate.high]

    return {
        "wins": verdict.wins,
        "ties": verdict.ties,
        "losses": verdict.losses,
        "win_rate": verdict.win_rate.value,
        "win_rate_interval": interval(verdict.win_rate),
        "mean_difference": verdict.difference.value,
        "mean_difference_interval": interval(verdict.difference),
        "mean_new": verdict.mean_new,
        "mean_old": verdict.mean_old,
    }

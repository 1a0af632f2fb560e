"""How reliable each annotator is, from where they agree with others: Dawid and Skene's model for two images.

Shapes:  N votes;  K annotators;  P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dmpo_app.labeling.quality.quality_votes import Bools, Floats, Ints, first_of_each

PRIOR_VOTES = 10.0
"""How many votes on the crowd's mean an annotator starts with: few votes of one's own move little."""
START = 0.8
"""Everybody's accuracy before the first look: above one half, so that the majority is taken to be right."""
LEAST_MEAN = 0.1
"""The mean of 2 q - 1 that prior and scale keep to at least: below it, weights would be quotients of noise."""

_MAX_ITERATIONS = 1000
_TOLERANCE = 1e-9
_SUREST = 0.99


@dataclass(frozen=True, slots=True)
class Reliability:
    """By annotator, (K,).

    accuracy: probability of naming the better image. compared: the votes that rests on, those on pairs that others
    judged too. relative: in [0, 1], 1 being the best annotator, 0 clicking at random or worse.
    weight: what their votes should count, >= 0; the mean over all votes is 1, and exactly 1 who cannot be compared.
    """

    accuracy: Floats
    compared: Ints
    relative: Floats
    weight: Floats


def dawid_skene(
    annotator: Ints,
    pair: Ints,
    chose_a: Bools,
    *,
    votes_of: Ints,
    truth: Floats | None = None,
    prior_votes: float = PRIOR_VOTES,
) -> Reliability:
    """Estimate accuracies and hidden truths together by expectation-maximisation (Dawid and Skene 1979).

    Which image of a pair is called a is chance, so an annotator's confusions are symmetric and one number says it all:
    q, the probability that they name the better image (the one-coin model). For a pair with votes s = +1 (a) or -1 (b):

        log odds that a is better = sum_j s_j logit(q_j);        q_j = (expected right votes + n0 m) / (votes + n0)

    with a Beta prior worth n0 votes at the crowd's mean m. A vote is then worth max(0, 2 q - 1), the share by which it
    beats a coin, and never less than nothing, however wrong; m is where the mean of that over the crowd's votes lies,
    so that somebody with few votes is worth just the mean, which is weight 1. Ties do not take part. Of several votes
    of one annotator on one pair the first counts.

    Args:
        annotator, pair: (N,) numbers of the votes for one of the images.
        chose_a: (N,) whether image a was preferred.
        votes_of: (K,) all votes of each annotator that will be weighed; the mean weight over these is 1.
        truth: (P,) 1 where image a is known to be better, 0 where b is, NaN where unknown; None: nowhere.
        prior_votes: n0 > 0.
    """
    known = np.full(int(pair.max(initial=-1)) + 1, np.nan) if truth is None else truth
    used = _comparable(annotator, pair, known)
    annotator, pair, sign = annotator[used], pair[used], np.where(chose_a[used], 1.0, -1.0)
    compared = np.bincount(annotator, minlength=len(votes_of)).astype(np.int64)
    accuracy = np.full(len(votes_of), START)
    if not used.any():
        return Reliability(accuracy, compared, np.ones_like(accuracy), np.ones_like(accuracy))
    informed = compared > 0
    for _ in range(_MAX_ITERATIONS):
        right = _expected_right(annotator, pair, sign, accuracy, known)
        mean = _mean_worth(accuracy, votes_of, informed)
        renewed = (right + prior_votes * (1 + mean) / 2) / (compared + prior_votes)
        change = float(np.abs(renewed - accuracy).max())
        accuracy = renewed
        if change < _TOLERANCE:
            break
    return _scaled(accuracy, compared, votes_of)


def _comparable(annotator: Ints, pair: Ints, known: Floats) -> Bools:
    """(N,) the first votes on pairs that two annotators judged or whose truth is known; others tell of nobody."""
    first = first_of_each(annotator, pair)
    judges = np.bincount(pair[first], minlength=len(known))
    comparable: Bools = first & ((judges[pair] >= 2) | ~np.isnan(known[pair]))
    return comparable


def _expected_right(annotator: Ints, pair: Ints, sign: Floats, accuracy: Floats, known: Floats) -> Floats:
    """(K,) how many of each annotator's votes name the better image, in expectation."""
    held = np.clip(accuracy, 1 - _SUREST, _SUREST)
    evidence = sign * np.log(held / (1 - held))[annotator]
    log_odds = np.bincount(pair, weights=evidence, minlength=len(known))
    a_is_better = np.where(np.isnan(known), 1 / (1 + np.exp(-log_odds)), known)[pair]
    votes = np.where(sign > 0, a_is_better, 1 - a_is_better)
    return np.bincount(annotator, weights=votes, minlength=len(accuracy)).astype(np.float64)


def _mean_worth(accuracy: Floats, votes_of: Ints, informed: Bools) -> float:
    """Mean of max(0, 2 q - 1) over the votes of those who can be compared."""
    worth = np.maximum(0.0, 2 * accuracy - 1)[informed]
    return max(LEAST_MEAN, float(np.average(worth, weights=votes_of[informed])))


def _scaled(accuracy: Floats, compared: Ints, votes_of: Ints) -> Reliability:
    informed = compared > 0
    worth = np.maximum(0.0, 2 * accuracy - 1)
    best = float(worth.max())
    mean = float(np.average(worth[informed], weights=votes_of[informed]))
    if mean <= 0:  # nobody who was compared beats a coin: then nothing tells the good from the bad
        return Reliability(accuracy, compared, np.zeros_like(accuracy), np.ones_like(accuracy))
    weight = np.where(informed, worth / mean, 1.0)
    return Reliability(accuracy, compared, np.where(informed, worth, mean) / best, weight)

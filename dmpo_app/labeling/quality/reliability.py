"""Reliability of annotators by Dawid and Skene's model for two images.

Shapes:  N votes;  K annotators;  P pairs.
"""

from dataclasses import dataclass

import numpy as np

from dmpo_app.labeling.quality.quality_votes import Bools, Floats, Ints, is_first_vote

PRIOR_VOTES = 10.0
"""The prior's weight, as votes on the crowd's mean: few votes of one's own move little."""
INITIAL_ACCURACY = 0.8
"""The initial accuracy of everybody: above one half, so that the majority is taken to be right."""
MIN_MEAN_WORTH = 0.1
"""The least mean of 2 q - 1 in prior and scale: below it, weights would be quotients of noise."""

_MAX_ITERATIONS = 1000
_TOLERANCE = 1e-9
_MAX_ACCURACY = 0.99


@dataclass(frozen=True, slots=True)
class Reliability:
    """The reliability of annotators, (K,) each.

    accuracy: probability of naming the better image. compared: the votes it rests on, those on pairs that others
    voted on too. relative: in [0, 1], 1 being the best annotator, 0 clicking at random or worse.
    weight: the weight of their votes, >= 0; the mean over all votes is 1, and exactly 1 who cannot be compared.
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
    num_votes: Ints,
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
        num_votes: (K,) all votes of each annotator that will be weighed; the mean weight over these is 1.
        truth: (P,) 1 where image a is known to be better, 0 where b is, NaN where unknown; None: nowhere.
        prior_votes: n0 > 0.
    """
    known_truth = np.full(int(pair.max(initial=-1)) + 1, np.nan) if truth is None else truth
    is_comparable = _comparable(annotator, pair, known_truth)
    annotator, pair, sign = annotator[is_comparable], pair[is_comparable], np.where(chose_a[is_comparable], 1.0, -1.0)
    compared = np.bincount(annotator, minlength=len(num_votes)).astype(np.int64)
    accuracy = np.full(len(num_votes), INITIAL_ACCURACY)
    if not is_comparable.any():
        return Reliability(accuracy, compared, np.ones_like(accuracy), np.ones_like(accuracy))
    has_comparisons = compared > 0
    for _ in range(_MAX_ITERATIONS):
        expected_right = _expected_right(annotator, pair, sign, accuracy, known_truth)
        mean = _mean_worth(accuracy, num_votes, has_comparisons)
        new_accuracy = (expected_right + prior_votes * (1 + mean) / 2) / (compared + prior_votes)
        change = float(np.abs(new_accuracy - accuracy).max())
        accuracy = new_accuracy
        if change < _TOLERANCE:
            break
    return _scale_weights(accuracy, compared, num_votes)


def _comparable(annotator: Ints, pair: Ints, known_truth: Floats) -> Bools:
    """(N,) mask of the first votes on pairs with two annotators or a known truth; others tell of nobody."""
    first = is_first_vote(annotator, pair)
    num_annotators = np.bincount(pair[first], minlength=len(known_truth))
    comparable: Bools = first & ((num_annotators[pair] >= 2) | ~np.isnan(known_truth[pair]))
    return comparable


def _expected_right(annotator: Ints, pair: Ints, sign: Floats, accuracy: Floats, known_truth: Floats) -> Floats:
    """(K,) the expected number of each annotator's votes that name the better image."""
    clipped = np.clip(accuracy, 1 - _MAX_ACCURACY, _MAX_ACCURACY)
    evidence = sign * np.log(clipped / (1 - clipped))[annotator]
    log_odds = np.bincount(pair, weights=evidence, minlength=len(known_truth))
    a_is_better = np.where(np.isnan(known_truth), 1 / (1 + np.exp(-log_odds)), known_truth)[pair]
    votes = np.where(sign > 0, a_is_better, 1 - a_is_better)
    return np.bincount(annotator, weights=votes, minlength=len(accuracy)).astype(np.float64)


def _mean_worth(accuracy: Floats, num_votes: Ints, has_comparisons: Bools) -> float:
    """Mean of max(0, 2 q - 1) over the votes of those who can be compared."""
    worth = np.maximum(0.0, 2 * accuracy - 1)[has_comparisons]
    return max(MIN_MEAN_WORTH, float(np.average(worth, weights=num_votes[has_comparisons])))


def _scale_weights(accuracy: Floats, compared: Ints, num_votes: Ints) -> Reliability:
    has_comparisons = compared > 0
    worth = np.maximum(0.0, 2 * accuracy - 1)
    best = float(worth.max())
    mean = float(np.average(worth[has_comparisons], weights=num_votes[has_comparisons]))
    if mean <= 0:  # nobody who was compared beats a coin: then nothing tells the good from the bad
        return Reliability(accuracy, compared, np.zeros_like(accuracy), np.ones_like(accuracy))
    weight = np.where(has_comparisons, worth / mean, 1.0)
    return Reliability(accuracy, compared, np.where(has_comparisons, worth, mean) / best, weight)

"""Quality checks of each annotator's own votes: repeats, gold pairs, sides, times, ties.

Shapes:  N votes;  K annotators. Pairs of arrays are (successes, trials), each (K,).
"""

import numpy as np

from dmpo_app.labeling.quality.quality_votes import NOT_GOLD, TIE, Floats, Ints, VoteArrays

FAST_MS = 600
"""Nobody can compare two images and choose in less than this."""
TIME_EDGES_MS = (0, 300, 600, 1000, 1500, 2000, 3000, 4000, 6000, 10_000, 20_000)
"""The left edges of the histogram of times; the last bin has no end."""


def repeat_consistency(votes: VoteArrays) -> tuple[Ints, Ints]:
    """Repeats with the same outcome as the first vote; sides are swapped, so voting by side shows.

    A repeat is compared with the annotator's first vote on the pair, unless one of them was skipped.
    """
    keys = votes.annotator * votes.num_pairs + votes.pair
    first = np.flatnonzero(~votes.repeat)
    first = first[np.argsort(keys[first])]
    first_vote = np.zeros(len(keys), np.int64)
    if first.size:
        first_vote = first[np.minimum(np.searchsorted(keys[first], keys), first.size - 1)]
    compared = votes.repeat & votes.is_not_skip & votes.is_not_skip[first_vote]
    same = compared & (votes.outcome == votes.outcome[first_vote])
    return votes.per_annotator(same), votes.per_annotator(compared)


def gold_accuracy(votes: VoteArrays) -> tuple[Ints, Ints]:
    """Right votes on gold pairs; of repeats only the first vote, and skips do not count."""
    is_gold_vote = (votes.gold != NOT_GOLD) & votes.is_not_skip & ~votes.repeat
    return votes.per_annotator(is_gold_vote & (votes.outcome == votes.gold)), votes.per_annotator(is_gold_vote)


def left_votes(votes: VoteArrays) -> tuple[Ints, Ints]:
    """Votes for the image on the left, among those for one of the images."""
    return votes.per_annotator(votes.chose_left), votes.per_annotator(votes.is_decided)


def tie_votes(votes: VoteArrays) -> tuple[Ints, Ints]:
    """Ties among the votes that are no skips."""
    return votes.per_annotator(votes.outcome == TIE), votes.per_annotator(votes.is_not_skip)


def fast_votes(votes: VoteArrays) -> tuple[Ints, Ints]:
    """Votes in less than FAST_MS, among those whose time is known."""
    timed = votes.elapsed_ms > 0
    return votes.per_annotator(timed & (votes.elapsed_ms < FAST_MS)), votes.per_annotator(timed)


def median_times(votes: VoteArrays) -> Floats:
    """(K,) median milliseconds from assignment to vote; NaN where no time is known."""
    medians = np.full(votes.num_annotators, np.nan)
    timed = np.flatnonzero(votes.elapsed_ms > 0)
    ordered = timed[np.argsort(votes.annotator[timed], kind="stable")]
    annotators, starts = np.unique(votes.annotator[ordered], return_index=True)
    for annotator, times in zip(
        annotators, np.split(votes.elapsed_ms[ordered], starts[1:]), strict=bool(annotators.size)
    ):
        medians[annotator] = np.median(times)
    return medians


def time_histogram(votes: VoteArrays) -> Ints:
    """Votes by the time they took, in the bins that TIME_EDGES_MS begins."""
    timed = votes.elapsed_ms[votes.elapsed_ms > 0]
    bins = np.searchsorted(TIME_EDGES_MS, timed, side="right") - 1
    return np.bincount(bins, minlength=len(TIME_EDGES_MS)).astype(np.int64)


def two_sided_coin_test(successes: Ints, trials: Ints) -> Floats:
    """(K,) p-values of the exact two-sided binomial test against 1/2; NaN without trials.

    A fair coin is symmetric, so both tails are twice the smaller one.
    """
    return np.minimum(1.0, 2.0 * _binomial_cdf(np.minimum(successes, trials - successes), trials, 0.5))


def too_few_test(successes: Ints, trials: Ints, *, expected: float) -> Floats:
    """(K,) p-values of the exact one-sided binomial test for less than a share `expected`; NaN without trials."""
    return _binomial_cdf(successes, trials, expected)


def _binomial_cdf(successes: Ints, trials: Ints, share: float) -> Floats:
    """(K,) the probability of so many successes or fewer; NaN without trials."""
    from scipy.special import bdtr  # here, since the page is up sooner without it

    cdf: Floats = np.where(trials > 0, bdtr(successes, np.maximum(trials, 1), share), np.nan)
    return cdf

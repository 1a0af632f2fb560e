"""What an annotator's own votes say about them: repeats, gold pairs, sides, times, ties.

Shapes:  N votes;  K annotators. Pairs of arrays are (successes, trials), each (K,).
"""

from __future__ import annotations

import numpy as np

from dmpo_app.labeling.quality.quality_votes import NOT_GOLD, TIE, Floats, Ints, VoteArrays

FAST_MS = 600
"""Nobody has looked at two pictures and chosen in less than this."""
TIME_EDGES_MS = (0, 300, 600, 1000, 1500, 2000, 3000, 4000, 6000, 10_000, 20_000)
"""Where the bars of the histogram of times begin; the last one has no end."""


def repeat_consistency(votes: VoteArrays) -> tuple[Ints, Ints]:
    """Repeats answered as the first time, in terms of the images; who goes by the side is caught when they are swapped.

    A repeat is compared with the annotator's first vote on the pair, unless one of them was skipped.
    """
    keys = votes.annotator * votes.num_pairs + votes.pair
    first = np.flatnonzero(~votes.repeat)
    first = first[np.argsort(keys[first])]
    earlier = np.zeros(len(keys), np.int64)
    if first.size:
        earlier = first[np.minimum(np.searchsorted(keys[first], keys), first.size - 1)]
    compared = votes.repeat & votes.says_something & votes.says_something[earlier]
    same = compared & (votes.answer == votes.answer[earlier])
    return votes.per_annotator(same), votes.per_annotator(compared)


def gold_accuracy(votes: VoteArrays) -> tuple[Ints, Ints]:
    """Right answers on pairs whose right answer is known; of repeats only the first vote, and skips do not count."""
    judged = (votes.gold != NOT_GOLD) & votes.says_something & ~votes.repeat
    return votes.per_annotator(judged & (votes.answer == votes.gold)), votes.per_annotator(judged)


def left_choices(votes: VoteArrays) -> tuple[Ints, Ints]:
    """Votes for the image on the left, among those for one of the images."""
    return votes.per_annotator(votes.chose_left), votes.per_annotator(votes.decided)


def ties(votes: VoteArrays) -> tuple[Ints, Ints]:
    """Ties among the answers that say something."""
    return votes.per_annotator(votes.answer == TIE), votes.per_annotator(votes.says_something)


def fast_votes(votes: VoteArrays) -> tuple[Ints, Ints]:
    """Votes in less than FAST_MS, among those whose time is known."""
    timed = votes.elapsed_ms > 0
    return votes.per_annotator(timed & (votes.elapsed_ms < FAST_MS)), votes.per_annotator(timed)


def median_times(votes: VoteArrays) -> Floats:
    """(K,) median milliseconds from showing to answer; NaN where no time is known."""
    medians = np.full(votes.num_annotators, np.nan)
    timed = np.flatnonzero(votes.elapsed_ms > 0)
    ordered = timed[np.argsort(votes.annotator[timed], kind="stable")]
    who, starts = np.unique(votes.annotator[ordered], return_index=True)
    for annotator, times in zip(who, np.split(votes.elapsed_ms[ordered], starts[1:]), strict=bool(who.size)):
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
    return np.minimum(1.0, 2.0 * _at_most(np.minimum(successes, trials - successes), trials, 0.5))


def too_few_test(successes: Ints, trials: Ints, *, expected: float) -> Floats:
    """(K,) p-values of the exact one-sided binomial test for less than a share `expected`; NaN without trials."""
    return _at_most(successes, trials, expected)


def _at_most(successes: Ints, trials: Ints, share: float) -> Floats:
    """(K,) the probability of so many successes or fewer; NaN without trials."""
    from scipy.special import bdtr  # here, since the page is up sooner without it

    found: Floats = np.where(trials > 0, bdtr(successes, np.maximum(trials, 1), share), np.nan)
    return found

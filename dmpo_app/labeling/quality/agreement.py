"""Do annotators agree: Krippendorff's alpha over everybody, and each annotator against the others.

Shapes:  N votes;  K annotators;  P pairs;  C answers.
"""

from __future__ import annotations

import numpy as np

from dmpo_app.labeling.quality.quality_votes import ANSWERS, Bools, Floats, Interval, Ints, VoteArrays

BOOTSTRAP_SAMPLES = 2000
_MIN_DEFINED = 0.9
"""An interval needs at least this share of the bootstrap samples to have an alpha at all."""


def answer_counts(votes: VoteArrays) -> Ints:
    """(P, C): how often each pair was given each answer, each annotator counted once; see `VoteArrays.independent`."""
    counted = votes.independent
    counts = np.zeros((votes.num_pairs, len(ANSWERS)), np.int64)
    np.add.at(counts, (votes.pair[counted], votes.answer[counted]), 1)
    return counts


def krippendorff_alpha(counts: Ints) -> float | None:
    """Krippendorff's alpha for nominal answers, at most 1; 0 is what chance would give.

    Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), with its coincidences o_ck = sum over units u of
    n_uc (n_uk - [c = k]) / (m_u - 1), where n_uc of the m_u answers on unit u are c, n_c = sum_k o_ck, n = sum_c n_c:

        alpha = 1 - (n - 1) (n - sum_c o_cc) / (n^2 - sum_c n_c^2)

    Args:
        counts: (P, C), answers by unit; units with fewer than two answers cannot be compared and do not count.

    None when nothing can be compared, or only one answer was ever given: then chance alone explains full agreement.
    """
    terms = _terms(counts[counts.sum(1) >= 2])
    value = float(_alpha(terms.sum(0)[None])[0])
    return None if np.isnan(value) else value


def alpha_interval(counts: Ints, rng: np.random.Generator, *, samples: int = BOOTSTRAP_SAMPLES) -> Interval | None:
    """Alpha with a 95 % percentile interval from a bootstrap over pairs: all answers on a pair are drawn together.

    Pairs with the same answers are alike, so how often each kind of pair is drawn is multinomial, and the cost does
    not grow with the number of pairs. None where `krippendorff_alpha` is, and when too few samples have an alpha.
    """
    value = krippendorff_alpha(counts)
    if value is None:
        return None
    kinds, numbers = np.unique(counts[counts.sum(1) >= 2], axis=0, return_counts=True)
    total = int(numbers.sum())
    drawn = rng.multinomial(total, numbers / total, size=samples)
    alphas = _alpha(drawn @ _terms(kinds))
    alphas = alphas[~np.isnan(alphas)]
    if len(alphas) < _MIN_DEFINED * samples:
        return None
    low, high = np.quantile(alphas, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def majority_agreement(votes: VoteArrays) -> tuple[Ints, Ints]:
    """(agreeing, compared), each (K,): an annotator's votes against the answer most of the others gave on the pair.

    A vote is compared where others judged the pair and one of their answers is more frequent than any other.
    """
    counted = votes.independent
    pair, answer = votes.pair[counted], votes.answer[counted]
    others = answer_counts(votes)[pair]
    others[np.arange(len(answer)), answer] -= 1
    most = others.max(1, initial=0)
    compared = (most > 0) & ((others == most[:, None]).sum(1) == 1)
    agreeing = compared & (others[np.arange(len(answer)), answer] == most)
    return votes.per_annotator(_at(counted, agreeing)), votes.per_annotator(_at(counted, compared))


def _at(which: Bools, values: Bools) -> Bools:
    """(N,) `values` in the places marked in `which`, False elsewhere."""
    spread = np.zeros(len(which), np.bool_)
    spread[which] = values
    return spread


def _terms(counts: Ints) -> Floats:
    """(U, 1 + C): what each unit adds to sum_c o_cc, and to every n_c. Alpha needs nothing else."""
    sizes = counts.sum(1)
    agreeing = (counts * (counts - 1)).sum(1) / (sizes - 1)
    return np.concatenate([agreeing[:, None], counts.astype(np.float64)], axis=1)


def _alpha(terms: Floats) -> Floats:
    """(S,) alpha from (S, 1 + C) sums of terms; NaN where it is not defined."""
    agreeing, by_answer = terms[:, 0], terms[:, 1:]
    n = by_answer.sum(1)
    by_chance = n**2 - (by_answer**2).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        alpha: Floats = np.where(by_chance > 0, 1 - (n - 1) * (n - agreeing) / by_chance, np.nan)
    return alpha

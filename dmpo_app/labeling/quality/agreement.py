"""Inter-annotator agreement: Krippendorff's alpha over everybody, and each annotator against the others.

Shapes:  N votes;  K annotators;  P pairs;  C outcomes.
"""

import numpy as np

from dmpo_app.labeling.quality.quality_votes import OUTCOMES, Bools, Floats, Interval, Ints, VoteArrays

BOOTSTRAP_SAMPLES = 2000
_MIN_DEFINED = 0.9
"""The least share of bootstrap samples that must have an alpha for an interval."""


def outcome_counts(votes: VoteArrays) -> Ints:
    """(P, C) votes by pair and outcome, each annotator counted once; see `VoteArrays.is_independent`."""
    mask = votes.is_independent
    counts = np.zeros((votes.num_pairs, len(OUTCOMES)), np.int64)
    np.add.at(counts, (votes.pair[mask], votes.outcome[mask]), 1)
    return counts


def krippendorff_alpha(counts: Ints) -> float | None:
    """Krippendorff's alpha for nominal outcomes, at most 1; 0 is what chance would give.

    Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), with its coincidences o_ck = sum over units u of
    n_uc (n_uk - [c = k]) / (m_u - 1), where n_uc of the m_u votes on unit u are c, n_c = sum_k o_ck, n = sum_c n_c:

        alpha = 1 - (n - 1) (n - sum_c o_cc) / (n^2 - sum_c n_c^2)

    Args:
        counts: (P, C), votes by unit and outcome; units with fewer than two votes do not count.

    None when nothing can be compared, or only one outcome ever occurs: then chance alone explains full agreement.
    """
    terms = _terms(counts[counts.sum(1) >= 2])
    value = float(_alpha(terms.sum(0)[None])[0])
    return None if np.isnan(value) else value


def alpha_interval(counts: Ints, rng: np.random.Generator, *, samples: int = BOOTSTRAP_SAMPLES) -> Interval | None:
    """Alpha with a 95 % percentile interval from a bootstrap over pairs: all votes on a pair are sampled together.

    Pairs with the same votes are alike, so how often each kind of pair is sampled is multinomial, and the cost does
    not grow with the number of pairs. None where `krippendorff_alpha` is, and when too few samples have an alpha.
    """
    value = krippendorff_alpha(counts)
    if value is None:
        return None
    kinds, numbers = np.unique(counts[counts.sum(1) >= 2], axis=0, return_counts=True)
    total = int(numbers.sum())
    samples_by_kind = rng.multinomial(total, numbers / total, size=samples)
    alphas = _alpha(samples_by_kind @ _terms(kinds))
    alphas = alphas[~np.isnan(alphas)]
    if len(alphas) < _MIN_DEFINED * samples:
        return None
    low, high = np.quantile(alphas, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def majority_agreement(votes: VoteArrays) -> tuple[Ints, Ints]:
    """(agreeing, compared), each (K,): an annotator's votes against the majority of the others on the pair.

    A vote is compared where others voted on the pair and one of their outcomes is more frequent than any other.
    """
    mask = votes.is_independent
    pair, outcome = votes.pair[mask], votes.outcome[mask]
    others = outcome_counts(votes)[pair]
    others[np.arange(len(outcome)), outcome] -= 1
    most = others.max(1, initial=0)
    compared = (most > 0) & ((others == most[:, None]).sum(1) == 1)
    agreeing = compared & (others[np.arange(len(outcome)), outcome] == most)
    return votes.per_annotator(_scatter(mask, agreeing)), votes.per_annotator(_scatter(mask, compared))


def _scatter(mask: Bools, values: Bools) -> Bools:
    """(N,) `values` in the places marked in `mask`, False elsewhere."""
    scattered = np.zeros(len(mask), np.bool_)
    scattered[mask] = values
    return scattered


def _terms(counts: Ints) -> Floats:
    """(U, 1 + C) terms of each unit in sum_c o_cc, and in every n_c. Alpha needs nothing else."""
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

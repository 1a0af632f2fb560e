"""Weights of the annotators' votes in training, by their reliability: Dawid and Skene's model for two images.

Shapes:  N votes;  K annotators;  P pairs.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import numpy as np

from dmpo_app.domain.vote import Outcome
from dmpo_app.labeling.quality.quality_votes import Bools, Floats, Ints, OutcomeVote, is_first_vote, number_ids

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
    established: Bools | None = None,
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
        established: (K,) whose votes are evidence of the truth; the others are held against it and cannot move it, and
            the crowd's mean is theirs. None, or nobody's votes: everybody's.
        prior_votes: n0 > 0.
    """
    known_truth = np.full(int(pair.max(initial=-1)) + 1, np.nan) if truth is None else truth
    is_evidence = np.ones(len(num_votes), np.bool_) if established is None else established
    if not is_evidence[annotator].any():
        is_evidence = np.ones_like(is_evidence)
    is_comparable = _comparable(annotator, pair, known_truth, is_evidence)
    annotator, pair, sign = annotator[is_comparable], pair[is_comparable], np.where(chose_a[is_comparable], 1.0, -1.0)
    compared = np.bincount(annotator, minlength=len(num_votes)).astype(np.int64)
    accuracy = np.full(len(num_votes), INITIAL_ACCURACY)
    if not is_comparable.any():
        return Reliability(accuracy, compared, np.ones_like(accuracy), np.ones_like(accuracy))
    has_comparisons = compared > 0
    for _ in range(_MAX_ITERATIONS):
        expected_right = _expected_right(annotator, pair, sign, accuracy, known_truth, is_evidence)
        mean = _mean_worth(accuracy, num_votes, has_comparisons & is_evidence)
        new_accuracy = (expected_right + prior_votes * (1 + mean) / 2) / (compared + prior_votes)
        change = float(np.abs(new_accuracy - accuracy).max())
        accuracy = new_accuracy
        if change < _TOLERANCE:
            break
    return _scale_weights(accuracy, compared, num_votes, is_evidence)


def _comparable(annotator: Ints, pair: Ints, known_truth: Floats, is_evidence: Bools) -> Bools:
    """(N,) mask of the first votes on pairs with evidence of somebody else or a known truth; others tell of nobody."""
    first = is_first_vote(annotator, pair)
    num_others = np.bincount(pair[first & is_evidence[annotator]], minlength=len(known_truth))[pair]
    comparable: Bools = first & ((num_others >= 1 + is_evidence[annotator]) | ~np.isnan(known_truth[pair]))
    return comparable


def _expected_right(
    annotator: Ints, pair: Ints, sign: Floats, accuracy: Floats, known_truth: Floats, is_evidence: Bools
) -> Floats:
    """(K,) the expected number of each annotator's votes that name the better image."""
    clipped = np.clip(accuracy, 1 - _MAX_ACCURACY, _MAX_ACCURACY)
    evidence = sign * (np.log(clipped / (1 - clipped)) * is_evidence)[annotator]
    log_odds = np.bincount(pair, weights=evidence, minlength=len(known_truth))
    a_is_better = np.where(np.isnan(known_truth), 1 / (1 + np.exp(-log_odds)), known_truth)[pair]
    votes = np.where(sign > 0, a_is_better, 1 - a_is_better)
    return np.bincount(annotator, weights=votes, minlength=len(accuracy)).astype(np.float64)


def _mean_worth(accuracy: Floats, num_votes: Ints, has_comparisons: Bools) -> float:
    """Mean of max(0, 2 q - 1) over the votes of those who can be compared."""
    worth = np.maximum(0.0, 2 * accuracy - 1)[has_comparisons]
    if not has_comparisons.any():
        return MIN_MEAN_WORTH
    return max(MIN_MEAN_WORTH, float(np.average(worth, weights=num_votes[has_comparisons])))


def _scale_weights(accuracy: Floats, compared: Ints, num_votes: Ints, is_evidence: Bools) -> Reliability:
    has_comparisons = compared > 0
    worth = np.maximum(0.0, 2 * accuracy - 1)
    best = float(worth.max())
    crowd = has_comparisons & is_evidence
    mean = float(np.average(worth[crowd], weights=num_votes[crowd])) if crowd.any() else 0.0
    if mean <= 0:  # nobody who was compared beats a coin: then nothing tells the good from the bad
        return Reliability(accuracy, compared, np.zeros_like(accuracy), np.ones_like(accuracy))
    weight = np.where(has_comparisons, worth / mean, 1.0)
    return Reliability(accuracy, compared, np.where(has_comparisons, worth, mean) / best, weight)


def cap_factors(masses: Floats, max_share: float) -> Floats:
    """(K,) factors in (0, 1] on the annotators' weights, so that none has more than `max_share` of all weight.

    Water-filling: those above a common level are lowered to it, the others stay, and the level is where it is just
    `max_share` of what is left in total. Nobody is lowered below the upper median annotator, though. With fewer than
    1 / max_share annotators no level can do it; the level is the median then, which gives equal shares where most do
    as much as each other, and keeps one passing visitor with a single vote from cutting everybody down to theirs.

    Args:
        masses: (K,) what each annotator's votes weigh together, >= 0; those with 0 do not take part.
        max_share: in (0, 1].
    """
    has_mass = masses > 0
    ordered = np.sort(masses[has_mass])
    if not ordered.size:
        return np.ones_like(masses)
    level = max(_level(ordered, max_share), float(ordered[ordered.size // 2]))
    factors = np.ones_like(masses)
    factors[has_mass] = np.minimum(level, masses[has_mass]) / masses[has_mass]
    return factors


def _level(ordered: Floats, max_share: float) -> float:
    """The level at which the largest masses are `max_share` of the total; 0 where there is none. `ordered` ascends."""
    lower = np.concatenate([[0.0], np.cumsum(ordered)])
    for num_capped in range(ordered.size):
        num_free = ordered.size - num_capped
        if max_share * num_capped >= 1:
            return 0.0
        level = float(max_share * lower[num_free] / (1 - max_share * num_capped))
        if level >= ordered[num_free - 1]:
            return level
    return 0.0


def newcomer_factors(masses: Floats, *, most_each: float, most_together: float) -> Floats:
    """(K,) factors in (0, 1] on newcomers' weights, so that neither one nor all of them weigh more than they may.

    Those above a common level are lowered to it: one who is loud is lowered first, and the others stay as they are.

    Args:
        masses: (K,) what each newcomer's votes weigh together, >= 0.
        most_each, most_together: > 0, in the same unit.
    """
    has_mass = masses > 0
    if not has_mass.any():
        return np.ones_like(masses)
    ordered = np.sort(masses[has_mass])
    sums = np.cumsum(np.minimum(ordered, most_each))
    level = most_each
    if sums[-1] > most_together:
        # The level that spends all when the k smallest are below it; the right k is the first where it is among them.
        levels = (most_together - np.concatenate([[0.0], sums[:-1]])) / np.arange(ordered.size, 0, -1)
        level = min(most_each, float(levels[np.flatnonzero(levels <= ordered)[0]]))
    factors = np.ones_like(masses)
    factors[has_mass] = np.minimum(level, masses[has_mass]) / masses[has_mass]
    return factors


Method = Literal["off", "dawid_skene"]


@dataclass(frozen=True, slots=True)
class VoteWeights:
    """Weights by annotator id, all >= 0; 1 for an unknown one. `summary` is fit for a round's record."""

    by_annotator: Mapping[int, float]
    summary: Mapping[str, float]

    def weight_for(self, annotator_id: int) -> float:
        """The weight of this annotator's votes."""
        return self.by_annotator.get(annotator_id, 1.0)


@dataclass(frozen=True, slots=True)
class VoteWeighing:
    """The weighing of votes: by reliability or not, and the largest shares of one annotator and of all newcomers.

    max_annotator_share: None: any. newcomer_share: of all newcomers together, None: any. established: the ids of
    those who are no newcomers; None: everybody is established.
    """

    reliability: Method = "off"
    max_annotator_share: float | None = None
    newcomer_share: float | None = None
    established: Collection[int] | None = None

    @property
    def is_off(self) -> bool:
        """True where every vote has weight 1."""
        without_newcomers = self.established is None or self.newcomer_share is None
        return self.reliability == "off" and self.max_annotator_share is None and without_newcomers

    def to_config(self) -> dict[str, Any]:
        """The values for a round's record."""
        established = None if self.established is None else sorted(self.established)
        return asdict(replace(self, established=established))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Inverse of `to_config`, also after JSON; older records know of no newcomers."""
        newcomers = config.get("newcomer_share"), config.get("established")
        return cls(config["reliability"], config["max_annotator_share"], *newcomers)

    def weights(self, votes: Sequence[OutcomeVote], *, applied_to: Sequence[OutcomeVote] | None = None) -> VoteWeights:
        """Weigh the annotators of `votes` by these votes alone: the same votes give the same weights, bit for bit.

        `applied_to`: other votes, such as held-out ones, that the weights are for: their annotators' reliability is
        that of `votes`, and the shares are of these.
        """
        ids, annotator = number_ids([vote.annotator_id for vote in votes])
        num_votes = np.bincount(annotator, minlength=len(ids)).astype(np.int64)
        weight = np.ones(len(ids))
        if self.reliability == "dawid_skene":
            weight = estimate_reliability(votes, annotator, num_votes, self.is_established(ids)).weight
        if applied_to is not None:
            reliability = dict(zip(ids, weight, strict=True))
            ids, annotator = number_ids([vote.annotator_id for vote in applied_to])
            num_votes = np.bincount(annotator, minlength=len(ids)).astype(np.int64)
            weight = np.array([reliability.get(one, 1.0) for one in ids])
        is_established = self.is_established(ids)
        factors = self.share_factors(weight * num_votes, is_established)
        weight = weight * factors
        return VoteWeights(
            {one: float(w) for one, w in zip(ids, weight, strict=True)},
            _summary(weight, num_votes, factors, is_established),
        )

    def is_established(self, ids: Sequence[int]) -> Bools:
        """(K,) mask of the established among these annotators."""
        if self.established is None:
            return np.ones(len(ids), np.bool_)
        established = frozenset(self.established)
        return np.array([one in established for one in ids], np.bool_)

    def share_factors(self, masses: Floats, is_established: Bools) -> Floats:
        """(K,) factors in (0, 1] on the annotators' weights, so that both shares are kept.

        The cap on one annotator counts the established alone, since newcomers cost nothing: a crowd of them with a
        vote each would lower everybody to one vote. While no established annotator has any weight there is no cap.

        Args:
            masses: (K,) what each annotator's votes weigh together, >= 0.
            is_established: (K,) as `is_established` gives.
        """
        factors = np.ones_like(masses)
        if self.max_annotator_share is not None:
            factors[is_established] = cap_factors(masses[is_established], self.max_annotator_share)
        total = float((masses * factors)[is_established].sum())
        if total > 0:
            factors[~is_established] = newcomer_factors(
                masses[~is_established],
                most_each=_mass_for_share(self.max_annotator_share, total),
                most_together=_mass_for_share(self.newcomer_share, total),
            )
        return factors


def _mass_for_share(share: float | None, others: float) -> float:
    """The mass that is `share` of all beside `others`; without a share, or with a whole one, there is no limit."""
    return np.inf if share is None or share >= 1 else others * share / (1 - share)


UNWEIGHED = VoteWeighing()


def estimate_reliability(
    votes: Sequence[OutcomeVote], annotator: Ints, num_votes: Ints, established: Bools
) -> Reliability:
    """Dawid-Skene on the votes for one of the images; `annotator` (N,) numbers them, `num_votes` (K,) counts all."""
    is_decided = np.array([vote.outcome in (Outcome.A, Outcome.B) for vote in votes], np.bool_)
    _, pair = number_ids([vote.pair_id for vote in votes])
    chose_a = np.array([vote.outcome is Outcome.A for vote in votes], np.bool_)
    decided = (annotator[is_decided], pair[is_decided], chose_a[is_decided])
    return dawid_skene(*decided, num_votes=num_votes, established=established)


def _summary(weight: Floats, num_votes: Ints, factors: Floats, is_established: Bools) -> dict[str, float]:
    masses = weight * num_votes
    total = float(masses.sum())
    return {
        "annotators": float(len(weight)),
        "newcomers": float((~is_established).sum()),
        "newcomers_share": float(masses[~is_established].sum()) / total if total else 0.0,
        "without_weight": float((weight == 0).sum()),
        "below_half": float((weight < 0.5).sum()),
        "capped": float((factors < 1).sum()),
        "largest_weight": float(weight.max(initial=0.0)),
        "largest_share": float(masses.max(initial=0.0)) / total if total else 0.0,
        "mean_weight": total / max(1.0, float(num_votes.sum())),
    }

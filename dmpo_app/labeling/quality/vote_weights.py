"""Weights of the annotators' votes in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from dmpo_app.domain.vote import Outcome
from dmpo_app.labeling.quality.quality_votes import Floats, Ints, OutcomeVote, number_ids
from dmpo_app.labeling.quality.reliability import Reliability, dawid_skene


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
    """The weighing of votes: by reliability or not, and the largest share of one annotator (None: any)."""

    reliability: Method = "off"
    max_annotator_share: float | None = None

    @property
    def is_off(self) -> bool:
        """True where every vote has weight 1."""
        return self.reliability == "off" and self.max_annotator_share is None

    def to_config(self) -> dict[str, Any]:
        """The values for a round's record."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> VoteWeighing:
        """Inverse of `to_config`, also after JSON."""
        return cls(config["reliability"], config["max_annotator_share"])

    def weights(self, votes: Sequence[OutcomeVote]) -> VoteWeights:
        """Weigh the annotators of `votes` by these votes alone: the same votes give the same weights, bit for bit."""
        ids, annotator = number_ids([vote.annotator_id for vote in votes])
        num_votes = np.bincount(annotator, minlength=len(ids)).astype(np.int64)
        weight = np.ones(len(ids))
        if self.reliability == "dawid_skene":
            weight = estimate_reliability(votes, annotator, num_votes).weight
        factors = np.ones(len(ids))
        if self.max_annotator_share is not None:
            factors = cap_factors(weight * num_votes, self.max_annotator_share)
        weight = weight * factors
        return VoteWeights(
            {one: float(w) for one, w in zip(ids, weight, strict=True)}, _summary(weight, num_votes, factors)
        )


UNWEIGHED = VoteWeighing()


def estimate_reliability(votes: Sequence[OutcomeVote], annotator: Ints, num_votes: Ints) -> Reliability:
    """Dawid-Skene on the votes for one of the images; `annotator` (N,) numbers them, `num_votes` (K,) counts all."""
    is_decided = np.array([vote.outcome in (Outcome.A, Outcome.B) for vote in votes], np.bool_)
    _, pair = number_ids([vote.pair_id for vote in votes])
    chose_a = np.array([vote.outcome is Outcome.A for vote in votes], np.bool_)
    return dawid_skene(annotator[is_decided], pair[is_decided], chose_a[is_decided], num_votes=num_votes)


def _summary(weight: Floats, num_votes: Ints, factors: Floats) -> dict[str, float]:
    masses = weight * num_votes
    total = float(masses.sum())
    return {
        "annotators": float(len(weight)),
        "without_weight": float((weight == 0).sum()),
        "below_half": float((weight < 0.5).sum()),
        "capped": float((factors < 1).sum()),
        "largest_weight": float(weight.max(initial=0.0)),
        "largest_share": float(masses.max(initial=0.0)) / total if total else 0.0,
        "mean_weight": total / max(1.0, float(num_votes.sum())),
    }

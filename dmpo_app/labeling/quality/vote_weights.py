"""What each annotator's votes count in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from dmpo_app.domain.vote import Outcome
from dmpo_app.labeling.quality.caps import cap_factors
from dmpo_app.labeling.quality.quality_votes import Answered, Floats, Ints, numbered
from dmpo_app.labeling.quality.reliability import Reliability, dawid_skene

Method = Literal["off", "dawid_skene"]


@dataclass(frozen=True, slots=True)
class VoteWeights:
    """Weights by annotator id, all >= 0; somebody unknown counts 1. `summary` is fit for a round's record."""

    by_annotator: Mapping[int, float]
    summary: Mapping[str, float]

    def of(self, annotator_id: int) -> float:
        """What a vote of this annotator counts."""
        return self.by_annotator.get(annotator_id, 1.0)


@dataclass(frozen=True, slots=True)
class VoteWeighing:
    """How votes are weighed: by reliability or not, and what share of all one annotator may weigh (None: any)."""

    reliability: Method = "off"
    max_annotator_share: float | None = None

    @property
    def is_off(self) -> bool:
        """Every vote counts 1."""
        return self.reliability == "off" and self.max_annotator_share is None

    def to_config(self) -> dict[str, Any]:
        """For a round's record."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> VoteWeighing:
        """Inverse of `to_config`, also after JSON."""
        return cls(config["reliability"], config["max_annotator_share"])

    def weights(self, votes: Sequence[Answered]) -> VoteWeights:
        """Weigh the annotators of `votes` by these votes alone: the same votes give the same weights, bit for bit."""
        ids, annotator = numbered([vote.annotator_id for vote in votes])
        votes_of = np.bincount(annotator, minlength=len(ids)).astype(np.int64)
        weight = np.ones(len(ids))
        if self.reliability == "dawid_skene":
            weight = reliability_of(votes, annotator, votes_of).weight
        factors = np.ones(len(ids))
        if self.max_annotator_share is not None:
            factors = cap_factors(weight * votes_of, self.max_annotator_share)
        weight = weight * factors
        return VoteWeights(
            {one: float(w) for one, w in zip(ids, weight, strict=True)}, _summary(weight, votes_of, factors)
        )


UNWEIGHED = VoteWeighing()


def reliability_of(votes: Sequence[Answered], annotator: Ints, votes_of: Ints) -> Reliability:
    """Dawid-Skene on the votes for one of the images; `annotator` (N,) numbers them, `votes_of` (K,) counts all."""
    decided = np.array([vote.outcome in (Outcome.A, Outcome.B) for vote in votes], np.bool_)
    _, pair = numbered([vote.pair_id for vote in votes])
    chose_a = np.array([vote.outcome is Outcome.A for vote in votes], np.bool_)
    return dawid_skene(annotator[decided], pair[decided], chose_a[decided], votes_of=votes_of)


def _summary(weight: Floats, votes_of: Ints, factors: Floats) -> dict[str, float]:
    masses = weight * votes_of
    total = float(masses.sum())
    return {
        "annotators": float(len(weight)),
        "without_weight": float((weight == 0).sum()),
        "below_half": float((weight < 0.5).sum()),
        "capped": float((factors < 1).sum()),
        "largest_weight": float(weight.max(initial=0.0)),
        "largest_share": float(masses.max(initial=0.0)) / total if total else 0.0,
        "mean_weight": total / max(1.0, float(votes_of.sum())),
    }

"""The verdict of the gate: a new version against the live one, by held-out votes, as numbers and in words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

from dmpo_app.domain.judging import Verdict, version_name
from dmpo_app.domain.lineage import BASE_VERSION

MIN_HELD_OUT_VOTES = 30
"""Fewer held-out votes cannot tell a good round from a bad one: it is published and marked as not yet proven."""
REFUSE_BELOW = 0.3
"""A version is worse when it falls behind by more than so many standard errors; see docs/training.md, "The gate"."""
CLEARLY_WORSE_BELOW = 2.0
"""A version that falls behind by more than so many standard errors goes live in no case, not even where the live one
learned from votes that were taken back: who takes votes back could make others' poisoned ones live."""
EXAMPLE_LOSS = 0.2
"""The loss, in pairs of a hundred that it is right on, of the worse version that `GateVerdict.caution` speaks of."""
_METRIC = "gate_"

_CODES = {Verdict.WORSE: -1.0, Verdict.UNSURE: 0.0, Verdict.BETTER: 1.0}


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """The verdict on a new version.

    `agreement` and `live_agreement` are the shares of the held-out votes that the new and the live version agree with,
    0.5 for the base model, which takes no side. `difference` is that of the agreements in which sure answers count for
    more (`gate.judge`), with its standard error over prompts and its 90 % interval. `wrong_share` is the estimated
    share of wrong votes.
    """

    outcome: Verdict
    live_version: int
    num_votes: int
    num_prompts: int
    agreement: float
    live_agreement: float
    difference: float
    standard_error: float
    low: float
    high: float
    wrong_share: float

    @property
    def has_enough_votes(self) -> bool:
        """True with enough held-out votes to refuse a version, or to prove it."""
        return self.num_votes >= MIN_HELD_OUT_VOTES

    @property
    def is_clearly_worse(self) -> bool:
        """True when it is worse by more than the chance of a hundred votes explains."""
        is_far_behind = self.difference < -CLEARLY_WORSE_BELOW * self.standard_error
        return self.outcome is Verdict.WORSE and is_far_behind

    @property
    def live_name(self) -> str:
        """The name of the live version, in words."""
        return version_name(self.live_version)

    @property
    def counts(self) -> str:
        """The votes that both versions agree with, in words."""
        live = "a coin would" if self.live_version == BASE_VERSION else f"{self.live_name} does"
        return (
            f"it agrees with {self._count(self.agreement)} of {self.num_votes} votes it has not seen, {live} with "
            f"{self._count(self.live_agreement)}"
        )

    @property
    def sentence(self) -> str:
        """The verdict for people."""
        counts = self.counts[0].upper() + self.counts[1:]
        if not self.has_enough_votes:
            return f"{counts}. These are too few votes to judge it by; people's duels can."
        words = {
            Verdict.BETTER: "It is better.",
            Verdict.WORSE: "It is worse.",
            Verdict.UNSURE: "That is too close to call it better.",
        }
        return f"{counts}. {words[self.outcome]}"

    @property
    def detection(self) -> float:
        """The probability that a version that is right on 20 pairs of 100 fewer would be refused by such votes."""
        if not math.isfinite(self.standard_error):
            return 0.0
        loss = EXAMPLE_LOSS * (1 - 2 * self.wrong_share)
        if self.standard_error == 0:  # the versions answer all votes alike, which tells nothing of others
            return 0.0
        return NormalDist().cdf(loss / self.standard_error - REFUSE_BELOW)

    @property
    def caution(self) -> str:
        """The error rates of the gate with votes like these, in one sentence for people."""
        if not self.has_enough_votes:
            return f"With fewer than {MIN_HELD_OUT_VOTES} votes it has not seen, no version is refused."
        tenths = min(9, max(1, round(10 * self.detection)))
        return (
            f"With so many votes, about {self.wrong_share:.0%} of them wrong, a version that gets 20 pairs of 100 more "
            f"wrong is refused about {tenths} times in 10, and one that is as good as the live one 3 times in 10."
        )

    def _count(self, share: float) -> int:
        return math.floor(share * self.num_votes + 0.5)

    def to_metrics(self) -> dict[str, float]:
        """The verdict among the metrics of an adapter, which are finite numbers."""
        metrics = {
            "outcome": _CODES[self.outcome],
            "live_version": float(self.live_version),
            "votes": float(self.num_votes),
            "prompts": float(self.num_prompts),
            "agreement": self.agreement,
            "live_agreement": self.live_agreement,
            "difference": self.difference,
            "wrong_share": self.wrong_share,
        }
        if math.isfinite(self.standard_error):
            metrics |= {"standard_error": self.standard_error, "low": self.low, "high": self.high}
        return {_METRIC + name: value for name, value in metrics.items()}

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, float]) -> Self | None:
        """Inverse of `to_metrics`; None for a version that the gate has not judged, such as an older one."""
        if f"{_METRIC}outcome" not in metrics:
            return None
        value = {name.removeprefix(_METRIC): number for name, number in metrics.items() if name.startswith(_METRIC)}
        outcomes = {code: outcome for outcome, code in _CODES.items()}
        return cls(
            outcome=outcomes[value["outcome"]],
            live_version=int(value["live_version"]),
            num_votes=int(value["votes"]),
            num_prompts=int(value["prompts"]),
            agreement=value["agreement"],
            live_agreement=value["live_agreement"],
            difference=value["difference"],
            standard_error=value.get("standard_error", math.inf),
            low=value.get("low", -math.inf),
            high=value.get("high", math.inf),
            wrong_share=value["wrong_share"],
        )

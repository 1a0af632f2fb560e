"""Limits that stop a round before it ruins its adapter, and the little that has to be remembered to notice.

Everything is a frozen value: a step or a look makes the next one, so that a checkpoint can hold it and a resumed round
stops where an uninterrupted one does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from dmpo_app.settings import RoundLimitSettings
from dmpo_app.training.loop.step import StepResult
from dmpo_app.training.monitoring.health import PairHealth

_VARIABLE = "DMPO_ROUND__LIMITS__"


@dataclass(frozen=True, slots=True)
class PassedLimit:
    """Which limit was passed (its name in the settings), at which step, with what value; `bound` is what it allows.

    `value` is None where it was not a finite number. `str` is the reason in words.
    """

    name: str
    step: int
    value: float | None
    bound: float
    said: str

    def __str__(self) -> str:
        value = "not a finite number" if self.value is None else f"{self.value:.3g}"
        return (
            f"stopped at step {self.step}: {self.said} {value}, the limit is {self.bound:g} "
            f"({_VARIABLE}{self.name.upper()})"
        )


@dataclass(frozen=True, slots=True)
class HealthWatch:
    """What limits need to know of the steps so far; `passed` is the first limit that was passed, if any.

    `steep_steps`: steps running with too large a gradient. `pairs`: the steps since the last look. `lost_looks`: looks
    running at which the preferred images did worse than allowed.
    """

    steep_steps: int = 0
    pairs: PairHealth = field(default_factory=PairHealth)
    lost_looks: int = 0
    passed: PassedLimit | None = None

    def after_step(self, step: int, result: StepResult, limits: RoundLimitSettings) -> HealthWatch:
        """The watch after step `step` (from 1)."""
        steep = limits.grad_norm is not None and not result.grad_norm <= limits.grad_norm
        running = self.steep_steps + 1 if steep else 0
        passed = self.passed
        if passed is None and limits.grad_norm is not None and running >= limits.grad_norm_steps:
            said = f"after {running} steps running above the limit, the gradient's norm is"
            passed = _passed("grad_norm", step, result.grad_norm, limits.grad_norm, said)
        if passed is None and limits.adapter_rms is not None and not result.adapter_rms <= limits.adapter_rms:
            said = "the root mean square of what the adapter adds to its layers' outputs is"
            passed = _passed("adapter_rms", step, result.adapter_rms, limits.adapter_rms, said)
        return replace(self, steep_steps=running, pairs=self.pairs + result.pairs, passed=passed)

    def after_look(self, step: int, drift: Mapping[str, float], limits: RoundLimitSettings) -> HealthWatch:
        """The watch after a look at step `step`; `drift` from `LatentPreview`, empty where images are not watched."""
        share, floor = self.pairs.chosen_gain_share, limits.min_chosen_gain
        lost = self.lost_looks + 1 if floor is not None and not share >= floor else 0
        passed = self.passed or next(_drifted(step, drift, limits), None)
        if passed is None and floor is not None and lost >= limits.chosen_gain_looks:
            said = f"at {lost} looks running, the model restores preferred images worse than its base; the gain is"
            passed = _passed("min_chosen_gain", step, share, floor, said)
        return HealthWatch(self.steep_steps, PairHealth(), lost, passed)

    def to_facts(self) -> dict[str, Any]:
        """As JSON, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> HealthWatch:
        """Inverse of `to_facts`."""
        return cls(
            steep_steps=facts["steep_steps"],
            pairs=PairHealth(**facts["pairs"]),
            lost_looks=facts["lost_looks"],
            passed=PassedLimit(**facts["passed"]) if facts["passed"] else None,
        )


def _drifted(step: int, drift: Mapping[str, float], limits: RoundLimitSettings) -> Iterator[PassedLimit]:
    """The limits on images that were passed. A value that is not finite passes every limit on it."""
    for name, value in drift.items():
        said = f"over the base model's, the {name} of its images is"
        low: float | None = getattr(limits, f"min_{name}")
        high: float | None = getattr(limits, f"max_{name}", None)
        if low is not None and not value >= low:
            yield _passed(f"min_{name}", step, value, low, said)
        if high is not None and not value <= high:
            yield _passed(f"max_{name}", step, value, high, said)


def _passed(name: str, step: int, value: float, bound: float, said: str) -> PassedLimit:
    return PassedLimit(name, step, value if math.isfinite(value) else None, bound, said)

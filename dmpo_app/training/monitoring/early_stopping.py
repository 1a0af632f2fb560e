"""Early stopping: limits that stop a round before it ruins its adapter.

The monitor is a frozen value: a step or an evaluation makes the next one, so that a checkpoint can hold it and a
resumed round stops where an uninterrupted one does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dmpo_app.settings import RoundLimitSettings
from dmpo_app.training.loop.step import StepResult
from dmpo_app.training.monitoring.health import PairHealth

_VARIABLE = "DMPO_ROUND__LIMITS__"


@dataclass(frozen=True, slots=True)
class LimitViolation:
    """A limit that was exceeded: its name in the settings, the step, the value, and the bound that it allows.

    `value` is None where it was not a finite number. `str` is the reason in words.
    """

    name: str
    step: int
    value: float | None
    bound: float
    reason: str

    def __str__(self) -> str:
        value = "not a finite number" if self.value is None else f"{self.value:.3g}"
        return (
            f"stopped at step {self.step}: {self.reason} {value}, the limit is {self.bound:g} "
            f"({_VARIABLE}{self.name.upper()})"
        )


@dataclass(frozen=True, slots=True)
class EarlyStopMonitor:
    """Early-stop monitor: the state of the limits; `violation` is the first limit that was exceeded, if any.

    `consecutive_high_grad_steps`: steps in a row with too large a gradient. `pairs`: the steps since the last
    evaluation. `consecutive_regressions`: evaluations in a row at which the chosen images did worse than allowed.
    """

    consecutive_high_grad_steps: int = 0
    pairs: PairHealth = field(default_factory=PairHealth)
    consecutive_regressions: int = 0
    violation: LimitViolation | None = None

    def after_step(self, step: int, result: StepResult, limits: RoundLimitSettings) -> EarlyStopMonitor:
        """The monitor after step `step` (from 1)."""
        is_high_grad = limits.grad_norm is not None and not result.grad_norm <= limits.grad_norm
        high_grad_steps = self.consecutive_high_grad_steps + 1 if is_high_grad else 0
        violation = self.violation
        if violation is None and limits.grad_norm is not None and high_grad_steps >= limits.grad_norm_steps:
            reason = f"after {high_grad_steps} steps in a row above the limit, the gradient's norm is"
            violation = _make_violation("grad_norm", step, result.grad_norm, limits.grad_norm, reason)
        if violation is None and limits.adapter_rms is not None and not result.adapter_rms <= limits.adapter_rms:
            reason = "the root mean square of what the adapter adds to its layers' outputs is"
            violation = _make_violation("adapter_rms", step, result.adapter_rms, limits.adapter_rms, reason)
        return EarlyStopMonitor(high_grad_steps, self.pairs + result.pairs, self.consecutive_regressions, violation)

    def after_evaluation(self, step: int, drift: Mapping[str, float], limits: RoundLimitSettings) -> EarlyStopMonitor:
        """The monitor after an evaluation at step `step`; `drift` is from `LatentPreview`, or empty."""
        share, floor = self.pairs.chosen_gain_share, limits.min_chosen_gain
        regressions = self.consecutive_regressions + 1 if floor is not None and not share >= floor else 0
        violation = self.violation or next(_drift_violations(step, drift, limits), None)
        if violation is None and floor is not None and regressions >= limits.chosen_gain_looks:
            reason = (
                f"at {regressions} evaluations in a row, chosen images are restored worse than by the base; the gain is"
            )
            violation = _make_violation("min_chosen_gain", step, share, floor, reason)
        return EarlyStopMonitor(self.consecutive_high_grad_steps, PairHealth(), regressions, violation)

    def to_dict(self) -> dict[str, Any]:
        """Serialize as JSON for a checkpoint; its keys are those of the first version and do not change."""
        violation = self.violation
        stored = None
        if violation is not None:
            stored = {
                "name": violation.name,
                "step": violation.step,
                "value": violation.value,
                "bound": violation.bound,
                "said": violation.reason,
            }
        return {
            "steep_steps": self.consecutive_high_grad_steps,
            "pairs": asdict(self.pairs),
            "lost_looks": self.consecutive_regressions,
            "passed": stored,
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> EarlyStopMonitor:
        """Inverse of `to_dict`."""
        stored = facts["passed"]
        violation = None
        if stored is not None:
            violation = LimitViolation(stored["name"], stored["step"], stored["value"], stored["bound"], stored["said"])
        return cls(facts["steep_steps"], PairHealth(**facts["pairs"]), facts["lost_looks"], violation)


def _drift_violations(step: int, drift: Mapping[str, float], limits: RoundLimitSettings) -> Iterator[LimitViolation]:
    """The limits on images that are exceeded. A value that is not finite exceeds every limit on it."""
    for name, value in drift.items():
        reason = f"over the base model's, the {name} of its images is"
        low: float | None = getattr(limits, f"min_{name}")
        high: float | None = getattr(limits, f"max_{name}", None)
        if low is not None and not value >= low:
            yield _make_violation(f"min_{name}", step, value, low, reason)
        if high is not None and not value <= high:
            yield _make_violation(f"max_{name}", step, value, high, reason)


def _make_violation(name: str, step: int, value: float, bound: float, reason: str) -> LimitViolation:
    return LimitViolation(name, step, value if math.isfinite(value) else None, bound, reason)

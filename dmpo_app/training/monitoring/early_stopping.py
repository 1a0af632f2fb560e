"""Health metrics of a step, and early stopping: limits on them that end a round before it ruins its adapter.

Metrics are pure functions of errors and of adapters. The monitor of the limits is a frozen value: a step or an
evaluation makes the next one, so that a checkpoint can hold it and a resumed round stops where an uninterrupted one
does.

Shapes:  B pairs;  r rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from dmpo_app.objective import PairTerms
from dmpo_app.settings import RoundLimitSettings


@dataclass(frozen=True, slots=True)
class VoteAgreement:
    """Agreement of a model with the votes, as sums that add up over batches; ties have no side and do not count."""

    signed_margin: float = 0.0
    num_agreeing: float = 0.0
    num_decided: int = 0

    def __add__(self, other: VoteAgreement) -> VoteAgreement:
        return VoteAgreement(
            self.signed_margin + other.signed_margin,
            self.num_agreeing + other.num_agreeing,
            self.num_decided + other.num_decided,
        )

    @property
    def margin(self) -> float:
        """The mean margin u, positive where it points to the chosen image."""
        return self.signed_margin / max(self.num_decided, 1)

    @property
    def accuracy(self) -> float:
        """The share of pairs whose u points to the chosen image; u = 0 counts half."""
        return self.num_agreeing / self.num_decided if self.num_decided else 0.5


def compute_agreement(margins_B: Tensor, targets_B: Tensor) -> VoteAgreement:
    """Compute the agreement of margins with the sides that their targets take."""
    sides = torch.sign(targets_B - 0.5)
    signed_margins = (margins_B * sides)[sides != 0]
    return VoteAgreement(
        signed_margin=float(signed_margins.sum()),
        num_agreeing=float((signed_margins > 0).sum() + 0.5 * (signed_margins == 0).sum()),
        num_decided=signed_margins.numel(),
    )


@dataclass(frozen=True, slots=True)
class PairHealth:
    """Gains of winners and losers over the reference, as sums that add up over batches; ties have neither."""

    chosen_gains: float = 0.0
    rejected_gains: float = 0.0
    chosen_references: float = 0.0
    num_past: int = 0
    num_decided: int = 0

    def __add__(self, other: PairHealth) -> PairHealth:
        return PairHealth(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(PairHealth)))

    @property
    def chosen_gain(self) -> float:
        """The gain on chosen images, mean r - e, r and e the errors of reference and policy: positive is better."""
        return self.chosen_gains / max(self.num_decided, 1)

    @property
    def rejected_gain(self) -> float:
        """The gain on rejected images: an objective may let them go, and then it is negative."""
        return self.rejected_gains / max(self.num_decided, 1)

    @property
    def chosen_gain_share(self) -> float:
        """`chosen_gain` as a share of the reference's own error: comparable between models."""
        return self.chosen_gains / self.chosen_references if self.chosen_references > 0 else 0.0

    @property
    def past_target(self) -> float:
        """The share of pairs whose margin is beyond the log odds of their target."""
        return self.num_past / max(self.num_decided, 1)


def pair_health(terms: PairTerms, margins_B: Tensor) -> PairHealth:
    """Compute the health of one batch, with the margins at the scale that is reported."""
    sides_B = torch.sign(terms.target - 0.5)
    is_decided = sides_B != 0
    gains_a, gains_b = terms.reference_a - terms.policy_a.detach(), terms.reference_b - terms.policy_b.detach()
    is_a_chosen = sides_B > 0
    target_log_odds_B = torch.logit(terms.target).abs()
    return PairHealth(
        chosen_gains=float(torch.where(is_a_chosen, gains_a, gains_b)[is_decided].sum()),
        rejected_gains=float(torch.where(is_a_chosen, gains_b, gains_a)[is_decided].sum()),
        chosen_references=float(torch.where(is_a_chosen, terms.reference_a, terms.reference_b)[is_decided].sum()),
        num_past=int(((margins_B.detach() * sides_B)[is_decided] > target_log_odds_B[is_decided]).sum()),
        num_decided=int(is_decided.sum()),
    )


def adapter_norm(parameters: Mapping[str, Tensor], *, scaling: float) -> float:
    """The Frobenius norm of the whole weight update, sqrt(sum over layers of ||scaling B A||^2).

    ||B A||^2 = tr((B^T B)(A A^T)): two r x r Gram matrices a layer, never the update itself. `parameters` by file key,
    as `lora.attach` gives them.
    """
    squares: list[Tensor] = []
    for key, a in parameters.items():
        if key.endswith(".lora_A.weight"):
            b = parameters[key.replace(".lora_A.weight", ".lora_B.weight")]
            down, up = a.detach().flatten(1).float(), b.detach().flatten(1).float()
            squares.append(((up.T @ up) * (down @ down.T)).sum())
    if not squares:
        return 0.0
    # Rounding can leave a sum that should be 0 a hair below it.
    return scaling * math.sqrt(max(float(torch.stack(squares).cpu().double().sum()), 0.0))


def num_outputs(parameters: Mapping[str, Tensor]) -> int:
    """The number of outputs of all layers together.

    The adapter's norm over the root of this is the root mean square of what it adds to an output when inputs are
    independent and of unit variance: a size that wide and narrow, large and small models have in common.
    """
    return sum(parameter.shape[0] for key, parameter in parameters.items() if key.endswith(".lora_B.weight"))


@dataclass(frozen=True, slots=True)
class StepResult:
    """The metrics of a training step.

    `grad_norm` is the gradient's before it is clipped. The adapter's norm after the update, and what that is an output
    of its layers (`num_outputs`), are filled in by the trainer, which knows its scaling.
    """

    loss: float
    agreement: VoteAgreement
    pairs: PairHealth = field(default_factory=PairHealth)
    grad_norm: float = 0.0
    adapter_norm: float = 0.0
    adapter_rms: float = 0.0


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

"""Health metrics of a training round beside loss and margin: pure functions of errors and of adapters.

Shapes:  B pairs;  r rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from dmpo_app.objective import PairTerms


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

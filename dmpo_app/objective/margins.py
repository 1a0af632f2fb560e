"""The terms of a batch of pairs, the margin u that most objectives are made of, and the objective: a loss of the terms.

u says how much further than the reference the policy has moved towards image a of a pair.

An objective lives in a file of its own that defines `OBJECTIVE` and is named in `registry`.

Shapes:  B pairs;  C H W latent channels, height, width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import torch
from torch import Tensor


def margin(
    policy_error_a: Tensor,
    policy_error_b: Tensor,
    reference_error_a: Tensor,
    reference_error_b: Tensor,
    *,
    beta: float,
) -> Tensor:
    """The margin of each pair, in the errors' dtype.

        u = -0.5 * beta * ( (e_a - e_b) - (r_a - r_b) )

    e and r are the mean squared denoising errors of policy and reference, over channels, height and width, of one image
    at one timestep with one noise, which both images of a pair share. The factors are the convention of the
    Diffusion-DPO code (arXiv 2311.12908): T * omega(t) is part of `beta`, the error is a mean and not a sum.

    Swapping the images flips the sign of u exactly, and a policy that equals its reference has u = 0 exactly.

    Args:
        policy_error_a: (B,) errors of the trained network on image a; likewise the other three. Float32 or better:
            at beta 2000, rounding an error of 0.1 to bfloat16 moves u by up to 0.24.
        beta: scale of the margin, > 0.
    """
    gained_on_b = (policy_error_a - policy_error_b) - (reference_error_a - reference_error_b)
    return -0.5 * beta * gained_on_b


@dataclass(frozen=True, slots=True)
class Residuals:
    """Prediction minus target of the denoiser on both images, float32 (B, C, H, W). Policy's carry gradients.

    `reference_a` and `reference_b` are None unless an objective asked for the reference's whole prediction.
    """

    policy_a: Tensor
    policy_b: Tensor
    reference_a: Tensor | None = None
    reference_b: Tensor | None = None


@dataclass(frozen=True, slots=True)
class PairTerms:
    """A batch of pairs, each at one timestep with one noise that both of its images share.

    The four errors are mean squared denoising errors over channels, height and width, float32 (B,); those of the policy
    carry gradients. `target` (B,) is q, the probability asked for that image a wins.
    """

    policy_a: Tensor
    policy_b: Tensor
    reference_a: Tensor
    reference_b: Tensor
    target: Tensor
    residuals: Residuals | None = None

    def margin(self, beta: float) -> Tensor:
        """The margin u of each pair, (B,), positive where the policy gained on image a; see `margin`."""
        return margin(self.policy_a, self.policy_b, self.reference_a, self.reference_b, beta=beta)

    def select(self, positions: Sequence[int]) -> PairTerms:
        """Select the errors and targets of some of the pairs, without residuals."""
        indices = list(positions)
        return PairTerms(
            self.policy_a[indices],
            self.policy_b[indices],
            self.reference_a[indices],
            self.reference_b[indices],
            self.target[indices],
        )

    def swapped(self) -> PairTerms:
        """Swap the images a and b of all pairs, and the target with them."""
        residuals = self.residuals
        if residuals is not None:
            residuals = Residuals(residuals.policy_b, residuals.policy_a, residuals.reference_b, residuals.reference_a)
        return replace(
            self,
            policy_a=self.policy_b,
            policy_b=self.policy_a,
            reference_a=self.reference_b,
            reference_b=self.reference_a,
            target=1 - self.target,
            residuals=residuals,
        )


def by_side(target: Tensor, if_a: Tensor, if_b: Tensor) -> Tensor:
    """Select the loss of each pair by the side its target takes: `if_a` where q > 1/2, `if_b` where q < 1/2.

    For objectives that know a chosen and a rejected image and nothing in between. A tie has no side and takes the mean
    of both, which asks for neither. All (B,).
    """
    share_a = torch.heaviside(target - 0.5, target.new_tensor(0.5))
    # Not if_b + share_a * (if_a - if_b): an infinite loss of the side that is not taken must not count.
    return torch.where(share_a == 0.5, 0.5 * (if_a + if_b), torch.where(share_a > 0.5, if_a, if_b))


def loss_from_margin(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make a loss of a function of margin and target alone."""

    def loss(terms: PairTerms, *, beta: float, **options: float) -> Tensor:
        return function(terms.margin(beta), terms.target, **options)

    return loss


class Needs(StrEnum):
    """The reference's outputs that an objective's loss depends on.

    NOTHING: the policy alone. ERRORS: two numbers a pair, which can be kept from step to step. PREDICTIONS: the whole
    prediction, which costs a pass of the base model in every step.
    """

    NOTHING = "nothing"
    ERRORS = "errors"
    PREDICTIONS = "predictions"


Loss = Callable[..., Tensor]
"""`loss(terms, *, beta, **options)`: the loss of each pair, (B,), in the errors' dtype; finite for finite errors."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A preference objective: its loss with name, formula, source and options.

    `name` is what settings say, `title` what people say; `formula` is in terms of u, p, q and the errors.

    `options` are the objective's own numbers with their usual values. `soft` tells whether the whole target q counts,
    and the margin comes to rest at its log odds, or only the side that it takes. `start_spread` says how beta is found
    when it is not set: such that the base model's errors on the two images of a pair differ by this on average, as
    0.5 beta |r_a - r_b|; None where there is no beta.
    """

    name: str
    title: str
    formula: str
    source: str
    loss: Loss
    needs: Needs = Needs.ERRORS
    soft: bool = False
    start_spread: float | None = 18.0
    options: Mapping[str, float] = field(default_factory=dict)

"""The winner-preserving guard: the loser's gradient is scaled down where it would raise the winner's error.

Shapes:  B pairs;  C H W latent channels, height, width.
"""

from dataclasses import replace

import torch
from torch import Tensor

from dmpo_app.objective.margins import PairTerms


def guarded(terms: PairTerms, *, mu: float) -> PairTerms:
    """Scale the gradient of each loser's error by lambda in [0, 1]. No value of the terms changes.

    Seen in the space of predictions, a step along -grad e_w + lambda grad e_l changes the winner's error by
    -|g_w|^2 + lambda <g_l, g_w> to first order, where g = prediction - target. Asking for at most -mu |g_w|^2 gives

        lambda = min(1, (1 - mu) |g_w|^2 / <g_l, g_w>)   where <g_l, g_w> > 0, else 1

    The authors take one lambda a batch; here each pair has its own, which keeps the promise pair by pair and does not
    depend on how a batch is cut up. A tie has no loser and is left alone.

    Args:
        terms: with residuals of the policy.
        mu: in [0, 1], the share of the winner's own progress that is kept; 1 keeps out all that would cost it any.

    Fu et al. 2025, Diffusion-SDPO (arXiv 2511.03317).
    """
    if not 0 <= mu <= 1:
        raise ValueError(f"the guard's mu is {mu}, expected between 0 and 1")
    residuals = terms.residuals
    if residuals is None:
        raise ValueError("the winner-preserving guard needs the residuals of the policy; the terms hold errors alone")
    a, b = residuals.policy_a.detach(), residuals.policy_b.detach()
    along = (a * b).sum((1, 2, 3))
    scale_a = _scale(winner=b, along=along, mu=mu).where(terms.target < 0.5, torch.ones_like(along))
    scale_b = _scale(winner=a, along=along, mu=mu).where(terms.target > 0.5, torch.ones_like(along))
    return replace(
        terms, policy_a=_scale_gradient(terms.policy_a, scale_a), policy_b=_scale_gradient(terms.policy_b, scale_b)
    )


def _scale(*, winner: Tensor, along: Tensor, mu: float) -> Tensor:
    room = (1 - mu) * winner.square().sum((1, 2, 3))
    return torch.where(along > 0, (room / along.clamp(min=torch.finfo(along.dtype).tiny)).clamp(max=1), 1.0)


def _scale_gradient(values: Tensor, scale: Tensor) -> Tensor:
    return values.detach() + scale * (values - values.detach())

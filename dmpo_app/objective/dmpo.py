"""DMPO: Divergence Minimization Preference Optimization, the reverse-KL form of preference learning.

Shapes:  B pairs.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dmpo_app.objective.margins import Objective, loss_from_margin


def dmpo(margin: Tensor, target: Tensor | float) -> Tensor:
    """Reverse KL from the model's preference to the target, per pair.

    With u the margin (see `dmpo_app.objective.margins`), p = sigmoid(u) the probability under the model that image a
    beats image b, and q the target of that probability:

        L(u)  = KL( Bern(p) || Bern(q) ) = p [log p - log q] + (1 - p) [log(1 - p) - log(1 - q)]
        dL/du = p (1 - p) (u - c),   c = log(q / (1 - q))

    The one minimum is at u = c, so a pair that is already won is let go of. The gradient vanishes as u runs away from
    the target, so a pair that the model is sure about the other way (often a slip of the finger) is nearly ignored,
    where Diffusion-DPO pulls on it hardest.

    Args:
        margin: (B,) u, of any floating dtype; any other shape works elementwise.
        target: q, in the open interval (0, 1); broadcast against `margin`. A target that its own dtype has rounded to 0
            or 1, where the divergence is infinite, counts as the nearest one inside.

    Returns:
        The loss of each pair, of the shape and dtype of `margin`. Value and gradient are finite for |u| up to 1e4 and
        beyond: log p and log(1 - p) are taken as -softplus(-u) and -softplus(u), never as the logarithm of a
        probability that has rounded to 0 or 1. Half precision is computed in float32 and rounded once.

    Li et al. 2025 (arXiv 2507.07510); the same function of u as EXO's pairwise loss (arXiv 2402.00856, Eq. 16).
    """
    dtype = margin.dtype
    u = margin.float() if dtype in (torch.float16, torch.bfloat16) else margin
    q = _inside(target if isinstance(target, Tensor) else u.new_tensor(target)).to(u.dtype)
    # logsigmoid(x) is -softplus(-x) without softplus' switch to a straight line at x = 20.
    loss_a = torch.sigmoid(u) * (logsigmoid(u) - torch.log(q))
    loss_b = torch.sigmoid(-u) * (logsigmoid(-u) - torch.log1p(-q))
    return (loss_a + loss_b).to(dtype)


def _inside(target: Tensor) -> Tensor:
    edge = torch.finfo(target.dtype).eps / 2
    return target.clamp(edge, 1.0 - edge)


OBJECTIVE = Objective(
    name="dmpo",
    title="DMPO",
    formula="KL(Bern(p) || Bern(q))",
    source="Li et al. 2025, arXiv 2507.07510",
    loss=loss_from_margin(dmpo),
    soft=True,
)

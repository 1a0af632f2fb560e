"""Diffusion-KTO: every image on its own, desirable or not, against the average gain of the batch.

Shapes:  B pairs.
"""

import torch
from torch import Tensor

from dmpo_app.objective.margins import Objective, PairTerms, by_side


def diffusion_kto(terms: PairTerms, *, beta: float, desirable: float = 1.0, undesirable: float = 1.0) -> Tensor:
    """The Kahneman-Tversky loss of both images of a pair, the chosen one desirable, the other not.

        g = r(x) - e(x)                        what the policy gained on an image, errors as means, no factor 0.5
        Q = max(0, mean of g over the batch)   the point of reference, without gradient
        L = w_d (1 - sigmoid(beta (g_w - Q))) + w_u (1 - sigmoid(-beta (g_l - Q)))

    Q depends on the batch, so the loss of a pair does. Of the target only the side counts.

    Args:
        beta: 1000 in the authors' runs; there is no 0.5 before it.
        desirable, undesirable: the weights w_d and w_u, >= 0.

    Li et al. 2024 (arXiv 2404.04465), with the sigmoid as value function.
    """
    gain_a, gain_b = terms.reference_a - terms.policy_a, terms.reference_b - terms.policy_b
    point = torch.cat([gain_a, gain_b]).mean().clamp(min=0).detach()

    def loss(gain_w: Tensor, gain_l: Tensor) -> Tensor:
        won, lost = torch.sigmoid(-beta * (gain_w - point)), torch.sigmoid(beta * (gain_l - point))
        return desirable * won + undesirable * lost

    return by_side(terms.target, loss(gain_a, gain_b), loss(gain_b, gain_a))


OBJECTIVE = Objective(
    name="kto",
    title="Diffusion-KTO",
    formula="w_d (1 - sigmoid(beta (g_w - Q))) + w_u (1 - sigmoid(-beta (g_l - Q))), g = r - e",
    source="Li et al. 2024, arXiv 2404.04465",
    loss=diffusion_kto,
    options={"desirable": 1.0, "undesirable": 1.0},
)

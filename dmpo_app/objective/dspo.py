"""DSPO: the score of the winner, moved by the score of the preference.

Shapes:  B pairs;  C H W latent channels, height, width.
"""

import torch
from torch import Tensor

from dmpo_app.objective.margins import Needs, Objective, PairTerms, by_side


def dspo(terms: PairTerms, *, beta: float) -> Tensor:
    """Squared distance of the winner's prediction to the target score with the preference in it, per pair.

        L = mean over C, H, W of || d_w - beta (1 - sigmoid(u_w)) (d_w - d_ref_w) ||^2

    d is a residual, prediction minus target; u_w is the margin with the same beta. Gradients flow through all of it, as
    in the authors' code. Of the target only the side counts.

    Args:
        terms: with residuals of policy and reference.
        beta: 0.001 in the authors' runs on Stable Diffusion 1.5.

    Zhu et al. 2025, DSPO: Direct Score Preference Optimization for Diffusion Model Alignment (ICLR 2025).
    """
    residuals = terms.residuals
    if residuals is None or residuals.reference_a is None or residuals.reference_b is None:
        raise ValueError("DSPO needs the residuals of policy and reference; the terms hold errors alone")
    margin = terms.margin(beta)
    loss_a = _loss(residuals.policy_a, residuals.reference_a, margin, beta)
    loss_b = _loss(residuals.policy_b, residuals.reference_b, -margin, beta)
    return by_side(terms.target, loss_a, loss_b)


def _loss(policy_w: Tensor, reference_w: Tensor, margin_w: Tensor, beta: float) -> Tensor:
    pull = beta * torch.sigmoid(-margin_w)[:, None, None, None]
    return (policy_w - pull * (policy_w - reference_w)).square().mean((1, 2, 3))


OBJECTIVE = Objective(
    name="dspo",
    title="DSPO",
    formula="mean || d_w - beta (1 - sigmoid(u_w)) (d_w - d_ref_w) ||^2, d = prediction - target",
    source="Zhu et al. 2025, DSPO (ICLR 2025)",
    loss=dspo,
    needs=Needs.PREDICTIONS,
)

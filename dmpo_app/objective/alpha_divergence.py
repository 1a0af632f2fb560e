"""The alpha-divergences: a family with cDPO at one end and DMPO at the other.

Shapes:  B pairs.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dmpo_app.objective.conservative_dpo import conservative_dpo
from dmpo_app.objective.dmpo import dmpo
from dmpo_app.objective.margins import Objective, by_side, loss_from_margin


def alpha_divergence(margin: Tensor, target: Tensor, *, order: float) -> Tensor:
    """The alpha-divergence of order a between the model's preference and the target, per pair.

        D_a = ( sum_i p_i^a q_i^(1-a) - 1 ) / ( a (a - 1) ),   p = (p, 1 - p),  q = (q, 1 - q)

    a -> 1 is KL(p || q), which is DMPO; a -> 0 is KL(q || p), which is cDPO; a = 1/2 is four times the squared
    Hellinger distance. All have their one minimum at u = log(q / (1 - q)); what a decides is how hard a pair is pulled
    that is far from it: hardest at 0, hardly at 1.

    Args:
        margin: (B,) u; see `margins.margin`.
        target: (B,) q in the open interval (0, 1).
        order: a, in [0, 1]. The ends are the limits and not divisions by zero.

    Minka 2005, Divergence measures and message passing; f-PO (arXiv 2410.21662) for preferences.
    """
    if not 0 <= order <= 1:
        raise ValueError(f"the order of an alpha-divergence is {order}, expected between 0 and 1")
    if order in (0.0, 1.0):
        return dmpo(margin, target) if order else conservative_dpo(margin, target)
    log_p, log_q = (logsigmoid(margin), logsigmoid(-margin)), (torch.log(target), torch.log1p(-target))
    # sum q (e^(a r) - 1) with r = log p - log q, or the same seen from p: whichever end is nearer keeps the digits that
    # the small divisor asks for.
    if order < 0.5:
        terms = [_weighted_expm1(lq, order * (lp - lq)) for lp, lq in zip(log_p, log_q, strict=True)]
    else:
        terms = [_weighted_expm1(lp, (1 - order) * (lq - lp)) for lp, lq in zip(log_p, log_q, strict=True)]
    return (terms[0] + terms[1]) / (order * (order - 1))


def alpha_po(margin: Tensor, target: Tensor, *, order: float) -> Tensor:
    """Alpha-PO: the winner's term alone of the alpha-divergence to a certain winner, per pair.

        ( p^a - (1 - a) - a p ) / ( a (a - 1) ),   p = sigmoid(u_w)

    a -> 1 is the reverse end, p log p - p + 1: the pull vanishes as u_w -> -inf; a -> 0 is the forward end,
    -log p + p - 1. Of the target only the side counts; a tie takes the mean of both sides.

    Args:
        margin: (B,) u; see `margins.margin`.
        target: (B,) q, the probability asked for that image a wins.
        order: a, in [0, 1].

    Han et al. 2024 (arXiv 2410.21662).
    """
    if not 0 <= order <= 1:
        raise ValueError(f"the order of an alpha-divergence is {order}, expected between 0 and 1")
    return by_side(target, _alpha_po_from_margin(margin, order), _alpha_po_from_margin(-margin, order))


def _alpha_po_from_margin(margin_w: Tensor, order: float) -> Tensor:
    p, log_p, q_loser = torch.sigmoid(margin_w), logsigmoid(margin_w), torch.sigmoid(-margin_w)
    if order == 1:
        return p * log_p + q_loser
    if order == 0:
        return -log_p - q_loser
    # p^a - 1 + a (1 - p), from whichever end of the range keeps the digits.
    if order < 0.5:
        return (torch.expm1(order * log_p) + order * q_loser) / (order * (order - 1))
    # p^a - (1 - a) - a p = p (p^(a-1) - 1) + (1 - a) (p - 1)
    return (_weighted_expm1(log_p, (order - 1) * log_p) - (1 - order) * q_loser) / (order * (order - 1))


def _weighted_expm1(log_weight: Tensor, exponent: Tensor) -> Tensor:
    """The product w (e^x - 1), exact for small x, and finite where e^x alone is not but w e^x is."""
    weight = log_weight.exp()
    return torch.where(
        exponent < 1, weight * torch.expm1(exponent.clamp(max=1)), (log_weight + exponent).exp() - weight
    )


OBJECTIVE = Objective(
    name="alpha-divergence",
    title="alpha-divergence",
    formula="(sum p^a q^(1-a) - 1) / (a (a - 1)); order a = 0 is cDPO, 1 is DMPO",
    source="Minka 2005; Han et al. 2024, arXiv 2410.21662",
    loss=loss_from_margin(alpha_divergence),
    soft=True,
    options={"order": 0.5},
)
ALPHA_PO = Objective(
    name="alpha-po",
    title="alpha-PO",
    formula="(p_w^a - (1 - a) - a p_w) / (a (a - 1))",
    source="Han et al. 2024, arXiv 2410.21662",
    loss=loss_from_margin(alpha_po),
    options={"order": 0.5},
)

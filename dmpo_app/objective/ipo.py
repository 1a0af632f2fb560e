"""IPO: a squared distance of the margin to a fixed goal.

Shapes:  B pairs.
"""

from torch import Tensor

from dmpo_app.objective.margins import Objective, by_side, loss_from_margin


def ipo(margin: Tensor, target: Tensor) -> Tensor:
    """IPO's loss, (u_w - 1/2)^2, per pair, where u_w is the margin counted towards the chosen image.

    The loss of the paper is (h - 1 / (2 tau))^2 with h the difference of log ratios; with u = tau h that is this one
    over tau^2, which is a matter of the learning rate. Of the target only the side counts; a tie is pulled towards 0.

    Args:
        margin: (B,) u; see `margins.margin`. beta takes the part of tau.
        target: (B,) q, the probability asked for that image a wins.

    Azar et al. 2023 (arXiv 2310.12036), Eq. 17.
    """
    return by_side(target, (margin - 0.5).square(), (margin + 0.5).square())


OBJECTIVE = Objective(
    name="ipo",
    title="IPO",
    formula="(u_w - 1/2)^2",
    source="Azar et al. 2023, arXiv 2310.12036",
    loss=loss_from_margin(ipo),
)

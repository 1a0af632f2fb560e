"""Diffusion-DPO: the forward direction of the same divergence, with a certain winner.

Shapes:  B pairs.
"""

from torch import Tensor
from torch.nn.functional import logsigmoid

from dmpo_app.objective.margins import Objective, by_side, loss_from_margin


def diffusion_dpo(margin: Tensor, target: Tensor) -> Tensor:
    """Diffusion-DPO's loss, -log sigmoid(u_w), per pair, where u_w is the margin counted towards the chosen image.

        KL( Bern(1) || Bern(p) );  dL/du_w = -sigmoid(-u_w)

    The pull is strongest, 1, on pairs that the model is sure about the other way, and never ends on the others. Of the
    target only the side counts; a tie is pulled towards u = 0.

    Args:
        margin: (B,) u in the convention of `margins.margin`: errors as means, factor 0.5, T * omega(t) inside beta.
        target: (B,) q, the probability asked for that image a wins.

    Wallace et al. 2023 (arXiv 2311.12908). The script of diffusers leaves out the factor 0.5: its beta_dpo 2500 is
    beta 5000 here.
    """
    return by_side(target, -logsigmoid(margin), -logsigmoid(-margin))


OBJECTIVE = Objective(
    name="dpo",
    title="Diffusion-DPO",
    formula="-log sigmoid(u_w)",
    source="Wallace et al. 2023, arXiv 2311.12908",
    loss=loss_from_margin(diffusion_dpo),
)

"""cDPO: Diffusion-DPO with a soft target; the forward direction of the divergence that DMPO takes in reverse.

Shapes:  B pairs.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dmpo_app.objective.margins import Objective, loss_from_margin


def conservative_dpo(margin: Tensor, target: Tensor) -> Tensor:
    """Forward KL from the target to the model's preference, per pair.

        KL( Bern(q) || Bern(p) ) = -q log p - (1 - q) log(1 - p) - H(q);  dL/du = p - q

    The minimum is where DMPO's is, at u = log(q / (1 - q)); the pull on a pair that is far off is of full strength
    where DMPO's vanishes. H(q), the entropy of the target, is taken off so that the loss ends at 0; it has no gradient.

    Args:
        margin: (B,) u; see `margins.margin`.
        target: (B,) q in [0, 1].

    Mitchell 2023, "A note on DPO with noisy preferences"; the label smoothing of TRL's DPO is 1 - q.
    """
    entropy = -(torch.xlogy(target, target) + torch.xlogy(1 - target, 1 - target))
    return -target * logsigmoid(margin) - (1 - target) * logsigmoid(-margin) - entropy


OBJECTIVE = Objective(
    name="cdpo",
    title="cDPO",
    formula="KL(Bern(q) || Bern(p))",
    source="Mitchell 2023, A note on DPO with noisy preferences",
    loss=loss_from_margin(conservative_dpo),
    soft=True,
)

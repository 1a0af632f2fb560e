"""MaPO: a margin without a reference, beside the winner's own loss.

Shapes:  B pairs.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dmpo_app.objective.margins import Needs, Objective, PairTerms, by_side


def mapo(
    terms: PairTerms,
    *,
    beta: float,  # noqa: ARG001 - all losses are called alike
    weight: float = 0.1,
    timesteps: float = 1000.0,
    steepness: float = 0.5,
) -> Tensor:
    """The winner's error less the weighted log-probability that its score beats the loser's, per pair.

        L = e_w - weight * log sigmoid( T [phi(e_w) - phi(e_l)] ),   phi(e) = s e / (exp(s e) - 1)

    phi falls from 1 at e = 0, so a smaller error is a higher score. Of the target only the side counts.

    Args:
        weight: of the margin's part; the authors' beta.
        timesteps: T, the length of the noise schedule.
        steepness: s > 0.

    Hong et al. 2024 (arXiv 2406.06424).
    """
    margin = timesteps * (_phi(terms.policy_a, steepness) - _phi(terms.policy_b, steepness))
    return by_side(
        terms.target, terms.policy_a - weight * logsigmoid(margin), terms.policy_b - weight * logsigmoid(-margin)
    )


def _phi(errors: Tensor, steepness: float) -> Tensor:
    scaled = steepness * errors
    # At 0 the ratio is 0 / 0; its limit is 1 - x / 2, which the first place where x counts as 0 hardly leaves.
    safe = torch.where(scaled == 0, torch.ones_like(scaled), scaled)
    return torch.where(scaled == 0, 1 - scaled / 2, safe / torch.expm1(safe))


OBJECTIVE = Objective(
    name="mapo",
    title="MaPO",
    formula="e_w - weight log sigmoid(T (phi(e_w) - phi(e_l))), phi(e) = s e / (exp(s e) - 1)",
    source="Hong et al. 2024, arXiv 2406.06424",
    loss=mapo,
    needs=Needs.NOTHING,
    start_spread=None,
    options={"weight": 0.1, "timesteps": 1000.0, "steepness": 0.5},
)

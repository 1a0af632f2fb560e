"""DMPO over K images of one prompt: the reverse KL between two softmaxes.

Shapes:  B prompts;  K images of each.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import log_softmax


def ranking_dmpo(policy_errors: Tensor, reference_errors: Tensor, target: Tensor, *, beta: float) -> Tensor:
    """Reverse KL from the model's choice among K images to the target's, per prompt, (B,).

        p = softmax_i( -0.5 beta (e_i - r_i) ),   L = KL(p || q) = sum_i p_i (log p_i - log q_i)

    e and r are the policy's and the reference's mean squared errors at one timestep with one noise, which all K images
    share. At K = 2 this is `dmpo` of the margin, since p_1 = sigmoid(u).

    Args:
        policy_errors: (B, K) float32 or better; likewise the reference's.
        target: (B, K) q, positive, rows summing to 1; `ranking_target` makes one.
        beta: as in `margins.margin`, > 0.

    Li et al. 2025 (arXiv 2507.07510) in the form of EXO with K samples (arXiv 2402.00856).
    """
    log_p = log_softmax(-0.5 * beta * (policy_errors - reference_errors), dim=-1)
    return (log_p.exp() * (log_p - target.log())).sum(-1)


def ranking_target(scores: Tensor, *, temperature: float) -> Tensor:
    """q = softmax_i(r_i / temperature), (B, K), from scores (B, K) in which more is better.

    For a ranking without scores, minus the rank will do: at temperature 1 / log((1 - alpha) / alpha) two neighbours
    then stand to each other as the images of a pair do with that alpha.
    """
    if temperature <= 0:
        raise ValueError(f"a temperature of {temperature} is not positive")
    return (scores / temperature).softmax(-1)

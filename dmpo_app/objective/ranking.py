"""DMPO over K images of one prompt: the reverse KL between two softmaxes.

Shapes:  B prompts;  K images of each, linked by K - 1 pairs of neighbours: (0, 1), (1, 2), ...
"""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, pad


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
    error_reduction = reference_errors - policy_errors
    return ranking_dmpo_from_margins(0.5 * beta * (error_reduction[:, :-1] - error_reduction[:, 1:]), target)


def ranking_dmpo_from_margins(chain_margins: Tensor, target: Tensor) -> Tensor:
    """`ranking_dmpo` from the margins of neighbours alone, per prompt, (B,).

        s_0 = 0,   s_{i+1} = s_i - u_i,   p = softmax(s),   L = KL(p || q)

    A softmax knows nothing but differences, and u_i = -0.5 beta ((e_i - e_{i+1}) - (r_i - r_{i+1})) is that of images i
    and i + 1.

    Args:
        chain_margins: (B, K - 1) u of the pairs (0, 1), (1, 2), ..., at one timestep with one noise; see
            `margins.margin`. Float32 or better.
        target: (B, K) q, rows summing to 1. What its dtype has rounded to 0, where the divergence is infinite, counts
            as the smallest number above.
    """
    log_p = log_softmax(pad(-chain_margins.cumsum(-1), (1, 0)), dim=-1)
    log_q = target.clamp_min(torch.finfo(target.dtype).tiny).log()
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def ranking_target(scores: Tensor, *, temperature: float) -> Tensor:
    """The target q = softmax_i(r_i / temperature), (B, K), from scores (B, K) in which more is better.

    For a ranking without scores, minus the rank will do: at temperature 1 / log((1 - alpha) / alpha) two neighbours
    then stand to each other as the images of a pair do with that alpha.
    """
    if temperature <= 0:
        raise ValueError(f"a temperature of {temperature} is not positive")
    return (scores / temperature).softmax(-1)

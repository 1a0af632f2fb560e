"""The margin u: how much further than the reference the policy has moved towards image a of a pair.

Shapes:  B pairs.
"""

from __future__ import annotations

from torch import Tensor


def margin(
    policy_error_a: Tensor,
    policy_error_b: Tensor,
    reference_error_a: Tensor,
    reference_error_b: Tensor,
    *,
    beta: float,
) -> Tensor:
    """The margin of each pair, in the errors' dtype.

        u = -0.5 * beta * ( (e_a - e_b) - (r_a - r_b) )

    e and r are the mean squared denoising errors of policy and reference, over channels, height and width, of one image
    at one timestep with one noise, which both images of a pair share. The factors are the convention of the
    Diffusion-DPO code (arXiv 2311.12908): T * omega(t) is part of `beta`, the error is a mean and not a sum.

    Swapping the images flips the sign of u exactly, and a policy that equals its reference has u = 0 exactly.

    Args:
        policy_error_a: (B,) errors of the trained network on image a; likewise the other three. Float32 or better:
            at beta 2000, rounding an error of 0.1 to bfloat16 moves u by up to 0.24.
        beta: scale of the margin, > 0.
    """
    gained_on_b = (policy_error_a - policy_error_b) - (reference_error_a - reference_error_b)
    return -0.5 * beta * gained_on_b

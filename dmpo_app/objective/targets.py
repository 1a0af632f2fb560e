"""Soft targets: which probability the votes on a pair ask of the model.

Shapes:  B pairs.
"""

from __future__ import annotations

from torch import Tensor


def soft_target(wins_a: Tensor, num_votes: Tensor, *, alpha: float) -> Tensor:
    """The probability q that image a beats image b, from the votes on each pair.

    The mean of the Beta posterior under the symmetric prior Beta(s, s) with s = alpha / (1 - 2 alpha), clamped to
    [alpha, 1 - alpha]:

        q = (wins_a + s) / (num_votes + 2 s)

    This s is the one under which a single vote is worth what `alpha` says: a vote for a gives 1 - alpha, for b alpha,
    a tie (half a win) 0.5. No votes give 0.5. Votes that disagree draw q towards the middle, votes that agree cannot
    push it past the clamp, so one enthusiast and ten ask for the same finite margin.

    Args:
        wins_a: (B,) votes for image a, a tie counting one half; 0 <= wins_a <= num_votes.
        num_votes: (B,) votes, >= 0.
        alpha: softness of the target, 0 < alpha <= 0.5.
    """
    # Multiplied through by (1 - 2 alpha): the same number, and alpha = 0.5 divides by nothing.
    firmness = 1.0 - 2.0 * alpha
    posterior_mean = (wins_a * firmness + alpha) / (num_votes * firmness + 2.0 * alpha)
    return posterior_mean.clamp(alpha, 1.0 - alpha)

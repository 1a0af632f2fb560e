"""Soft targets: the probability q that the votes on a pair, and automatic scorers, ask of the model.

Shapes:  B pairs.
"""

import torch
from torch import Tensor


def soft_target(wins_a: Tensor, num_votes: Tensor, *, alpha: float) -> Tensor:
    """The probability q that image a beats image b, from the votes on each pair.

    The mean of the Beta posterior under the symmetric prior Beta(s, s) with s = alpha / (1 - 2 alpha), clamped to
    [alpha, 1 - alpha]:

        q = (wins_a + s) / (num_votes + 2 s)

    This s is the one under which a single vote is worth what `alpha` says: a vote for a gives 1 - alpha, for b alpha,
    a tie (half a win) 0.5. No votes give 0.5. Votes that disagree draw q towards the middle, votes that agree cannot
    push it past the clamp, so one enthusiast and ten ask for the same finite margin.

    Neither count need be whole. A vote of an annotator with weight w counts w in both; a vote of strength s in [0, 1]
    ("slightly" 0.5, "clearly" 1) for a counts (1 + s) / 2 of a win, which lies between a tie and a win.

    Args:
        wins_a: (B,) weighted votes for image a, a tie counting one half; 0 <= wins_a <= num_votes.
        num_votes: (B,) weighted votes, >= 0.
        alpha: softness of the target, 0 < alpha <= 0.5.
    """
    # Multiplied through by (1 - 2 alpha): the same number, and alpha = 0.5 divides by nothing.
    firmness = 1.0 - 2.0 * alpha
    posterior_mean = (wins_a * firmness + alpha) / (num_votes * firmness + 2.0 * alpha)
    return posterior_mean.clamp(alpha, 1.0 - alpha)


def graded_win(wins_a: float, strength: float) -> float:
    """The graded win of image a from one vote, in [0, 1]: `wins_a` (1 for a, 0 for b, 0.5 a tie) moved to the middle.

    `strength` in [0, 1]: 1 leaves the vote as it is, 0 makes it a tie.
    """
    return 0.5 + strength * (wins_a - 0.5)


def score_target(scores_a: Tensor, scores_b: Tensor, *, temperature: float) -> Tensor:
    """The target q = sigmoid((r_A - r_B) / tau), (B,): a scorer's probability that image a is the better one.

    Args:
        scores_a, scores_b: (B,) more is better.
        temperature: tau > 0, the difference of scores that is worth one unit of log odds.
    """
    if temperature <= 0:
        raise ValueError(f"a temperature of {temperature} is not positive")
    return torch.sigmoid((scores_a - scores_b) / temperature)


def mixed_target(human: Tensor, num_votes: Tensor, automatic: Tensor, *, human_share: float, alpha: float) -> Tensor:
    """Mix human and automatic evidence into one target, (B,).

        q = w human + (1 - w) automatic   where there are votes,   q = automatic   where there are none

    clamped to [alpha, 1 - alpha]. Li et al. 2025 (arXiv 2507.07510) derive the objective for any such q.

    Args:
        human: (B,) from `soft_target`.
        num_votes: (B,) votes behind it; 0 means that nobody has voted on the pair.
        automatic: (B,) from `score_target`, or a mean of several.
        human_share: w in [0, 1].
        alpha: softness of the target, 0 < alpha <= 0.5.
    """
    if not 0 <= human_share <= 1:
        raise ValueError(f"a human share of {human_share} is not between 0 and 1")
    mixture = human_share * human + (1 - human_share) * automatic
    return torch.where(num_votes > 0, mixture, automatic).clamp(alpha, 1 - alpha)

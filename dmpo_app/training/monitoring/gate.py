"""The gate: a new version against the live one, by the held-out votes of the same people.

Scale-free: how large margins are differs between versions and says nothing of how right they are, so only the side and
the rank of a margin among the version's own count.

Shapes:  N held-out pairs;  P prompts.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from dmpo_app.domain.judging import Verdict
from dmpo_app.domain.verdict import MIN_HELD_OUT_VOTES, REFUSE_BELOW, GateVerdict

Floats = NDArray[np.float64]
INTERVAL = 0.9
"""Level of the verdict's interval. A version is better when all of it is above 0: 5 % on that side."""


def answers(margins_N: Floats, weights_N: Floats) -> Floats:
    """The answers of a version, (N,) in [-2, 2]: the side of each margin times its sureness.

    Sureness is twice the share of the weight that lies on smaller margins than this, those of the same size by half: it
    is 1 on average for every version, and any increasing change of scale leaves it as it is. A margin of 0 has no side.
    """
    sizes, places = np.unique(np.abs(margins_N), return_inverse=True)
    weight_by_size = np.bincount(places, weights=weights_N, minlength=len(sizes))
    below = np.cumsum(weight_by_size) - weight_by_size / 2
    sureness: Floats = (2 * below / weights_N.sum())[places]
    return np.sign(margins_N) * sureness


def judge(
    margins: Sequence[float],
    live_margins: Sequence[float],
    *,
    vote_shares: Sequence[float],
    weights: Sequence[float],
    prompts: Sequence[str],
    num_votes: int,
    live_version: int,
    wrong_share: float,
) -> GateVerdict:
    """Judge a new version against the live one on N held-out pairs.

    With q the votes' own share for image a and v an answer of a version (`answers`), a pair's agreement is

        1/2 + (q - 1/2) v

    and the difference d of the two versions' is averaged by the votes' weights. Its standard error is over prompts,
    since votes on one prompt are not independent: sqrt(P / (P - 1) sum_p (sum_i w_i (d_i - d))^2) / sum_i w_i.

    The new version is worse when d lies more than `REFUSE_BELOW` standard errors below 0, and better when its 90 %
    interval (Student's t, P - 1 degrees of freedom) lies above 0. With fewer than `MIN_HELD_OUT_VOTES` votes, or a
    single prompt, nothing is sure. A share w of wrong votes shrinks all differences by 1 - 2 w and does not turn them.

    Args:
        margins, live_margins: the margins u of both versions, (N,); zeros for the base model.
        vote_shares, weights, prompts: q, w and the prompt of each pair, (N,).
        num_votes: the held-out votes on these pairs.
        wrong_share: the share of wrong votes, as estimated, for the error rates that the verdict names. It cannot be
            more than the share that the better version disagrees with, and is lowered to that.
    """
    new, live, shares, weight = (
        np.array(values, np.float64) for values in (margins, live_margins, vote_shares, weights)
    )
    sides = shares - 0.5
    differences = sides * (answers(new, weight) - answers(live, weight))
    difference, standard_error, num_prompts = clustered_mean(differences, weight, prompts)
    agreement, live_agreement = (_agreement(one, sides, weight) for one in (new, live))
    half_width = math.inf
    if num_prompts > 1:
        half_width = float(stdtrit(num_prompts - 1, (1 + INTERVAL) / 2)) * standard_error
    outcome = Verdict.UNSURE
    # Ties and weak preferences say less: of 29 ties and one vote that vote alone would decide.
    num_decided = num_votes * float((weight * np.abs(2 * sides)).sum() / weight.sum())
    if num_decided >= MIN_HELD_OUT_VOTES and math.isfinite(standard_error):
        if difference < -REFUSE_BELOW * standard_error:
            outcome = Verdict.WORSE
        elif difference - half_width > 0:
            outcome = Verdict.BETTER
    return GateVerdict(
        outcome=outcome,
        live_version=live_version,
        num_votes=num_votes,
        num_prompts=num_prompts,
        agreement=agreement,
        live_agreement=live_agreement,
        difference=difference,
        standard_error=standard_error,
        low=difference - half_width,
        high=difference + half_width,
        wrong_share=min(wrong_share, 1 - max(agreement, live_agreement)),
    )


def clustered_mean(values_N: Floats, weights_N: Floats, prompts: Sequence[str]) -> tuple[float, float, int]:
    """The weighted mean, its standard error over prompts (infinite for a single one), and the number of prompts."""
    total = float(weights_N.sum())
    mean = float((weights_N * values_N).sum()) / total
    numbers: dict[str, int] = {}
    clusters = np.array([numbers.setdefault(prompt, len(numbers)) for prompt in prompts])
    num_prompts = len(numbers)
    if num_prompts < 2:
        return mean, math.inf, num_prompts
    deviations: NDArray[Any] = np.bincount(clusters, weights=weights_N * (values_N - mean))
    spread = float((deviations**2).sum())
    return mean, math.sqrt(num_prompts / (num_prompts - 1) * spread) / total, num_prompts


def _agreement(margins_N: Floats, sides_N: Floats, weights_N: Floats) -> float:
    return 0.5 + float((weights_N * sides_N * np.sign(margins_N)).sum()) / float(weights_N.sum())

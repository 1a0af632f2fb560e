"""How much of all votes one annotator may weigh.

Shapes:  K annotators.
"""

from __future__ import annotations

import numpy as np

from dmpo_app.labeling.quality.quality_votes import Floats


def cap_factors(masses: Floats, max_share: float) -> Floats:
    """(K,) in (0, 1]: what each annotator's weight is multiplied by, so that none weighs more than `max_share` of all.

    Water-filling: those above a common level are lowered to it, the others stay, and the level is where it is just
    `max_share` of what is left in total. Nobody is lowered below the upper median annotator, though. With fewer than
    1 / max_share annotators no level can do it; the level is the median then, which gives equal shares where most do
    as much as each other, and keeps one passing visitor with a single vote from cutting everybody down to theirs.

    Args:
        masses: (K,) what each annotator's votes weigh together, >= 0; those with 0 do not take part.
        max_share: in (0, 1].
    """
    taking_part = masses > 0
    ordered = np.sort(masses[taking_part])
    if not ordered.size:
        return np.ones_like(masses)
    level = max(_level(ordered, max_share), float(ordered[ordered.size // 2]))
    factors = np.ones_like(masses)
    factors[taking_part] = np.minimum(level, masses[taking_part]) / masses[taking_part]
    return factors


def _level(ordered: Floats, max_share: float) -> float:
    """The level at which the largest masses are `max_share` of the total; 0 where there is none. `ordered` ascends."""
    lower = np.concatenate([[0.0], np.cumsum(ordered)])
    for num_capped in range(ordered.size):
        num_free = ordered.size - num_capped
        if max_share * num_capped >= 1:
            return 0.0
        level = float(max_share * lower[num_free] / (1 - max_share * num_capped))
        if level >= ordered[num_free - 1]:
            return level
    return 0.0

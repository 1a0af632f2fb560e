"""What the policy is least sure of."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from dmpo_app.domain.pair_choice import Candidate, Fact, Overlap


@dataclass(frozen=True, slots=True)
class ByUncertainty:
    """The smallest |margin| first. Pairs whose margin is not known yet come after those that have one."""

    needs: frozenset[Fact] = frozenset({Fact.MARGIN})
    overlap: Overlap | None = None

    def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:  # noqa: ARG002
        return sorted(candidates, key=lambda one: math.inf if one.margin is None else abs(one.margin))

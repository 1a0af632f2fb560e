"""No order at all: what the others are held against."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from dmpo_app.domain.pair_choice import Candidate, Fact, Overlap


@dataclass(frozen=True, slots=True)
class Shuffled:
    """The candidates in an order drawn anew."""

    needs: frozenset[Fact] = frozenset()
    overlap: Overlap | None = None

    def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:
        return rng.sample(candidates, len(candidates))

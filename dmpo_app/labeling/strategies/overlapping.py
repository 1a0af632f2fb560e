"""Some pairs for several people, so that agreement can be measured."""

from __future__ import annotations

import random
from collections.abc import Sequence

from dmpo_app.domain.pair_choice import Candidate, Fact, Overlap


class Overlapping:
    """Every `every`-th pair is judged by `people` people: once somebody has begun it, it comes before fresh ones."""

    def __init__(self, every: int, people: int) -> None:
        self.overlap: Overlap | None = Overlap(every, people)
        self.needs: frozenset[Fact] = frozenset()

    def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:  # noqa: ARG002
        """As they come: the store puts those that are begun first."""
        return list(candidates)

"""What votes say least about."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from dmpo_app.domain.pair_choice import Candidate, Fact, Overlap


@dataclass(frozen=True, slots=True)
class ByRating:
    """The widest posterior first: with w votes for a and l for b, a tie half each, the share that prefers a is
    Beta(1 + w, 1 + l) from a uniform prior, and its variance is (1 + w)(1 + l) / ((n + 2)^2 (n + 3)). An unjudged pair
    comes before one with a vote, a split one before one that all agree on."""

    needs: frozenset[Fact] = frozenset({Fact.WINS})
    overlap: Overlap | None = None

    def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:  # noqa: ARG002
        return sorted(candidates, key=lambda one: -_variance(one.wins))


def _variance(wins: tuple[int, int, int]) -> float:
    for_a, for_b, ties = wins
    a, b = 1 + for_a + ties / 2, 1 + for_b + ties / 2
    return a * b / ((a + b) ** 2 * (a + b + 1))

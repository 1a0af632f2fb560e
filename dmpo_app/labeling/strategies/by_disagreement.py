"""What automatic scorers disagree on."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from dmpo_app.domain.pair_choice import Candidate, Fact, Overlap


@dataclass(frozen=True, slots=True)
class ByDisagreement:
    """The widest spread between what scorers say of a pair first, each in its own standard deviations; with one scorer,
    what it finds most alike. Pairs without scores come last."""

    needs: frozenset[Fact] = frozenset({Fact.SCORES})
    overlap: Overlap | None = None

    def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:  # noqa: ARG002
        return sorted(candidates, key=_agreement)


def _agreement(one: Candidate) -> float:
    if not one.scores:
        return math.inf
    if len(one.scores) == 1:
        return abs(one.scores[0])
    return min(one.scores) - max(one.scores)

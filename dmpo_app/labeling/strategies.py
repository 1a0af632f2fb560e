"""Strategies for the order in which pairs are offered: active learning, coverage, overlap, or shuffled."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dmpo_app.domain.pair_choice import Candidate, Fact, Offering, Overlap, Strategy
from dmpo_app.settings import LabelingSettings


@dataclass(frozen=True, slots=True)
class Shuffled:
    """The candidates in an order drawn anew."""

    needs: frozenset[Fact] = frozenset()
    overlap: Overlap | None = None

    def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:
        return rng.sample(candidates, len(candidates))


class Overlapping:
    """Every `every`-th pair is judged by `people` people: once somebody has begun it, it comes before fresh ones."""

    def __init__(self, every: int, people: int) -> None:
        self.overlap: Overlap | None = Overlap(every, people)
        self.needs: frozenset[Fact] = frozenset()

    def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:  # noqa: ARG002
        """As they come: the store puts those that are begun first."""
        return list(candidates)


@dataclass(frozen=True, slots=True)
class ByUncertainty:
    """The smallest |margin| first. Pairs whose margin is not known yet come after those that have one."""

    needs: frozenset[Fact] = frozenset({Fact.MARGIN})
    overlap: Overlap | None = None

    def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:  # noqa: ARG002
        return sorted(candidates, key=lambda one: math.inf if one.margin is None else abs(one.margin))


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


@dataclass(frozen=True, slots=True)
class ByCoverage:
    """Pairs of the prompts with the fewest votes first, and within a request no prompt twice while there are others."""

    needs: frozenset[Fact] = frozenset({Fact.PROMPT_VOTES})
    overlap: Overlap | None = None

    def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:  # noqa: ARG002
        turns: Counter[int] = Counter()
        keyed = []
        for one in candidates:
            keyed.append((one.prompt_votes + turns[one.prompt_id], one))
            turns[one.prompt_id] += 1
        return [one for _, one in sorted(keyed, key=lambda pair: pair[0])]


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


STRATEGIES: Mapping[str, Callable[[LabelingSettings], Strategy | None]] = {
    "fresh": lambda _: None,  # the store's own order
    "overlap": lambda settings: Overlapping(settings.overlap_every, settings.overlap_people),
    "uncertainty": lambda _: ByUncertainty(),
    "scorers": lambda _: ByDisagreement(),
    "coverage": lambda _: ByCoverage(),
    "ratings": lambda _: ByRating(),
    "random": lambda _: Shuffled(),
}


def offering_of(settings: LabelingSettings) -> Offering:
    """How pairs are chosen under these settings."""
    return Offering(
        strategy=STRATEGIES[settings.strategy](settings),
        showings_per_pair=settings.showings_per_pair,
        gold_rate=settings.gold_rate,
        repeat_rate=settings.repeat_rate,
        repeat_after=settings.repeat_after,
        num_images=settings.num_images,
    )

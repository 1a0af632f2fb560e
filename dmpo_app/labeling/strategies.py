"""Strategies for the order in which pairs are offered: active learning, coverage, overlap, or shuffled."""

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dmpo_app.domain.vote import AssignmentRules, Candidate, CandidateFeature, Overlap, Strategy
from dmpo_app.settings import LabelingSettings


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Order the candidates at random."""

    required_features: frozenset[CandidateFeature] = frozenset()
    overlap: Overlap | None = None

    def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:
        return rng.sample(candidates, len(candidates))


class Overlapping:
    """Assign every `every`-th pair to `people` people: once somebody has begun it, it comes before fresh ones."""

    def __init__(self, every: int, people: int) -> None:
        self.overlap: Overlap | None = Overlap(every, people)
        self.required_features: frozenset[CandidateFeature] = frozenset()

    def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:  # noqa: ARG002
        """Keep the order of the store, which puts pairs that are begun first."""
        return list(candidates)


@dataclass(frozen=True, slots=True)
class ByUncertainty:
    """Order by |margin|, smallest first. Pairs without a margin come last."""

    required_features: frozenset[CandidateFeature] = frozenset({CandidateFeature.MARGIN})
    overlap: Overlap | None = None

    def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:  # noqa: ARG002
        return sorted(candidates, key=lambda one: math.inf if one.margin is None else abs(one.margin))


@dataclass(frozen=True, slots=True)
class ByDisagreement:
    """Order by the spread of the scorers' differences, widest first, each in its own standard deviations.

    With one scorer, pairs of the most similar scores come first. Pairs without scores come last.
    """

    required_features: frozenset[CandidateFeature] = frozenset({CandidateFeature.SCORES})
    overlap: Overlap | None = None

    def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:  # noqa: ARG002
        return sorted(candidates, key=_scorer_agreement)


def _scorer_agreement(one: Candidate) -> float:
    if not one.scores:
        return math.inf
    if len(one.scores) == 1:
        return abs(one.scores[0])
    return min(one.scores) - max(one.scores)


@dataclass(frozen=True, slots=True)
class ByCoverage:
    """Order by the prompts' votes, fewest first, and within a request no prompt twice while there are others."""

    required_features: frozenset[CandidateFeature] = frozenset({CandidateFeature.PROMPT_VOTES})
    overlap: Overlap | None = None

    def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:  # noqa: ARG002
        turns: Counter[int] = Counter()
        ranked = []
        for one in candidates:
            ranked.append((one.prompt_votes + turns[one.prompt_id], one))
            turns[one.prompt_id] += 1
        return [one for _, one in sorted(ranked, key=lambda pair: pair[0])]


@dataclass(frozen=True, slots=True)
class ByRating:
    """Order by the variance of the posterior share that prefers image a, widest first.

    With w votes for a and l for b, a tie half each, the share is Beta(1 + w, 1 + l) from a uniform prior, and its
    variance is (1 + w)(1 + l) / ((n + 2)^2 (n + 3)). A pair without votes comes before one with a vote, a split one
    before one that all agree on.
    """

    required_features: frozenset[CandidateFeature] = frozenset({CandidateFeature.WINS})
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


def assignment_rules(settings: LabelingSettings, *, duel_rate: float = 0.0) -> AssignmentRules:
    """The rules by which pairs are assigned under these settings, with this share of duels among them."""
    return AssignmentRules(
        strategy=STRATEGIES[settings.strategy](settings),
        assignments_per_pair=settings.showings_per_pair,
        gold_rate=settings.gold_rate,
        repeat_rate=settings.repeat_rate,
        repeat_after=settings.repeat_after,
        num_images=settings.num_images,
        duel_rate=duel_rate,
    )


def duel_rules(settings: LabelingSettings) -> AssignmentRules:
    """The rules by which duels alone are assigned under these settings."""
    return AssignmentRules(assignments_per_pair=settings.showings_per_pair, duels_only=True)

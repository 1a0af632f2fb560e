"""Plans of duels: two versions' images of one prompt and seed, made ahead for people to judge.

They are made while a study lacks some, and while fewer than `judging.duels_ready` of a comparison have no judgement
yet. Which versions are compared now, and which prompts a duel of them may have, the store says. While a round trains on
the CPU they rest, as the pool does.
"""

import logging
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dmpo_app.domain.judging import Comparison, NewDuel
from dmpo_app.domain.limits import MAX_SEED
from dmpo_app.domain.lineage import BaseModelRef, NewImage
from dmpo_app.errors import ConflictError
from dmpo_app.settings import JudgingSettings
from dmpo_app.store import Store

_MAX_REFUSALS = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DuelPlan:
    """A duel to render: one prompt and seed under two versions, in the order in which their images are stored."""

    prompt: str
    seed: int
    versions: tuple[int, int]


class DuelPlanner:
    """Planner of the next duels to render; the only state is the refusals: of prompts, and of versions."""

    def __init__(self, store: Store, base: BaseModelRef, settings: JudgingSettings, *, rng: random.Random) -> None:
        self._store = store
        self._base = base
        self._settings = settings
        self._rng = rng
        self._refusals: Counter[str] = Counter()
        self._skipped: set[frozenset[int]] = set()

    def next_duel(self) -> DuelPlan | None:
        """The next duel to make, or None when enough are ready, nothing is compared now, or there are no prompts."""
        return next(iter(self.next_duels(1)), None)

    def next_duels(self, at_most: int) -> list[DuelPlan]:
        """The duels that a study or else the comparison with the fewest ready ones lacks, up to a number.

        The prompt with the fewest duels of these versions comes first, at random among equals. The seed is random, and
        so is which version's image comes first.
        """
        for comparison, num_missing in self._needs():
            counts = Counter(self._store.duels.prompts(self._base, comparison.version_a, comparison.version_b))
            usable = [prompt for prompt in counts if self._refusals[prompt] < _MAX_REFUSALS]
            if usable:
                return [self._plan_duel(comparison, usable, counts) for _ in range(min(at_most, num_missing))]
        return []

    def record_refusal(self, plan: DuelPlan) -> None:
        """Record that a duel was refused; after three refusals its prompt is left alone."""
        self._refusals[plan.prompt] += 1

    def skip(self, plan: DuelPlan, error: Exception) -> None:
        """Compare these two versions no more, until the next start: one of them cannot be loaded."""
        _log.warning("no duels of versions %d and %d: %s", *plan.versions, error)
        self._skipped.add(frozenset(plan.versions))

    def _plan_duel(self, comparison: Comparison, usable: Sequence[str], counts: Counter[str]) -> DuelPlan:
        fewest = min(counts[prompt] for prompt in usable)
        prompt = self._rng.choice([prompt for prompt in usable if counts[prompt] == fewest])
        counts[prompt] += 1
        first, second = self._rng.sample((comparison.version_a, comparison.version_b), 2)
        return DuelPlan(prompt, self._rng.randint(0, MAX_SEED), (first, second))

    def _needs(self) -> Iterator[tuple[Comparison, int]]:
        """Yield what lacks duels, and how many: studies first, then comparisons, those that lack the most first."""
        studies = self._store.studies.list_needs(self._base)
        comparisons = [
            (one, self._settings.duels_ready - self._store.duels.count_ready(self._base, one.version_a, one.version_b))
            for one in self._store.duels.comparisons(self._base)
        ]
        for comparison, num_missing in [*studies, *sorted(comparisons, key=lambda need: -need[1])]:
            if num_missing > 0 and {comparison.version_a, comparison.version_b} not in self._skipped:
                yield comparison, num_missing


def store_duel(store: Store, base: BaseModelRef, image_a: NewImage, image_b: NewImage, *, flagged: bool) -> bool:
    """Store the images of a duel; False when it is dropped.

    That is when the model's safety checker blacked out one of them, and when a version was trained on its prompt.
    """
    if flagged:
        _log.info("a duel was dropped: the model's safety checker flagged it")
        return False
    try:
        store.duels.add(base, NewDuel(image_a.provenance.prompt, image_a, image_b))
    except ConflictError as error:
        _log.info("a duel was thrown away: %s", error)
        return False
    return True

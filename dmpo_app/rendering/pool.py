"""What to render next so that a person never waits for a pair.

The pool is the pairs that nobody has judged or holds: those the studio made, of any version, and the starter pairs.

It is filled while fewer than `pool.size` pairs are left, or fewer than half of that are of the live version. The second
rule makes a new version's own images appear for judging soon after it goes live; old pairs are not thrown away, and a
version that nobody votes on costs at most half a pool. While a round trains on the CPU the pool rests, because both
would take twice as long, unless fewer than a handful of pairs are left.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.prompt import clean_tag
from dmpo_app.domain.round import RoundStatus
from dmpo_app.settings import PoolSettings
from dmpo_app.store import Store

HANDFUL = 6
MAX_SEED = 2**31 - 1
_MAX_REFUSALS = 3


@dataclass(frozen=True, slots=True)
class PairPlan:
    """Two seeds of one prompt, or those of a set to be ranked, to be rendered under the live version."""

    prompt: str
    seeds: tuple[int, ...]


class PoolPlanner:
    """Decides which pair is made next. Plain values in and out; the only state is which prompts came to nothing."""

    def __init__(
        self,
        store: Store,
        base: BaseModelRef,
        settings: PoolSettings,
        *,
        rng: random.Random,
        shares_cpu: bool,
        num_images: int = 2,
    ) -> None:
        """`num_images`: 2 for pairs, more for sets to be ranked; others in the home do not count towards the pool."""
        self._store = store
        self._base = base
        self._settings = settings
        self._tags = [clean_tag(tag) for tag in settings.tags]
        self._rng = rng
        self._shares_cpu = shares_cpu
        self._num_images = num_images
        self._refusals: Counter[str] = Counter()

    def is_low(self) -> bool:
        """Whether so few pairs are left that a person might soon find none."""
        return self._left() < min(HANDFUL, self._settings.size)

    def next(self, live_version: int) -> PairPlan | None:
        """The next pair to make, or None when the pool is full, resting, or has no prompts to draw on.

        Drawn from the training prompts that are not retired, with any of `pool.tags` if there are some. The prompt with
        the fewest pairs comes first, at random among equals; seeds are random and differ.
        """
        return next(iter(self.plans(live_version, 1)), None)

    def plans(self, live_version: int, at_most: int) -> list[PairPlan]:
        """As many pairs as the pool lacks, up to a number, drawn as `next` draws one."""
        missing = min(at_most, self._missing(live_version))
        if missing == 0:
            return []
        prompts = self._store.prompts.for_pairs(self._tags)
        usable = [prompt for prompt in prompts if self._refusals[prompt] < _MAX_REFUSALS]
        counts = Counter(self._store.pairs.prompt_counts(self._base))
        return [self._draw(usable, counts) for _ in range(missing if usable else 0)]

    def _draw(self, usable: Sequence[str], counts: Counter[str]) -> PairPlan:
        fewest = min(counts[prompt] for prompt in usable)
        prompt = self._rng.choice([prompt for prompt in usable if counts[prompt] == fewest])
        counts[prompt] += 1
        return PairPlan(prompt=prompt, seeds=tuple(self._rng.sample(range(MAX_SEED + 1), self._num_images)))

    def refuse(self, plan: PairPlan) -> None:
        """Note that a pair came to nothing: the model's safety checker blacked it out, or its prompt has just been held
        out of training; three times, and the prompt is left alone."""
        self._refusals[plan.prompt] += 1

    def rests_for_a_round(self) -> bool:
        """Whether a round trains on the processor that rendering takes as well."""
        if not self._shares_cpu:
            return False
        current = self._store.rounds.current(self._base)
        return current is not None and current.status is RoundStatus.RUNNING

    def _missing(self, live_version: int) -> int:
        left = self._left()
        if left >= min(HANDFUL, self._settings.size) and self.rests_for_a_round():
            return 0
        return max(0, self._settings.size - left, (self._settings.size + 1) // 2 - self._left(live_version))

    def _left(self, version: int | None = None) -> int:
        return self._store.pairs.count_unjudged(self._base, adapter_version=version, num_images=self._num_images)

"""Plans of what is rendered for everybody: the pool of pairs, and the contact sheet.

The pool is the pairs that nobody has voted on or holds: those the studio made, of any version, and the starter pairs.

It is filled while fewer than `pool.size` pairs are left, or fewer than half of that are of the live version. The second
rule makes a new version's own images appear for voting soon after it goes live; old pairs are not thrown away, and a
version that nobody votes on costs at most half a pool. While a round trains on the CPU the pool rests, because both
would take twice as long, unless fewer than a handful of pairs are left.

Version 0 is on it too. What is missing is made whenever nothing more urgent waits, the live version first, so a studio
that was stopped in between catches up after the next start.
"""

import logging
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dmpo_app.domain.limits import MAX_SEED
from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef, NewImage, NewPair, PairSource, RoundStatus
from dmpo_app.domain.prompt import clean_tag
from dmpo_app.errors import ConflictError
from dmpo_app.settings import PoolSettings
from dmpo_app.store import Store

LOW_POOL_SIZE = 6
_MAX_REFUSALS = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PairPlan:
    """A pair to render under the live version: two seeds of one prompt, or those of a set to be ranked."""

    prompt: str
    seeds: tuple[int, ...]


class PoolPlanner:
    """Planner of the next pairs to render. Plain values in and out; the only state is the refusals of prompts."""

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
        """Plan for pairs or sets of one size.

        `num_images`: 2 for pairs, more for sets to be ranked; others in the home do not count towards the pool.
        """
        self._store = store
        self._base = base
        self._settings = settings
        self._tags = [clean_tag(tag) for tag in settings.tags]
        self._rng = rng
        self._shares_cpu = shares_cpu
        self._num_images = num_images
        self._refusals: Counter[str] = Counter()

    def is_low(self) -> bool:
        """True when so few pairs are left that a person might soon find none."""
        return self._count_unvoted() < min(LOW_POOL_SIZE, self._settings.size)

    def next_pair(self, live_version: int) -> PairPlan | None:
        """The next pair to make, or None when the pool is full, paused by a round, or has no prompts.

        From the training prompts that are not retired, with any of `pool.tags` if there are some. The prompt with
        the fewest pairs comes first, at random among equals; seeds are random and differ.
        """
        return next(iter(self.next_pairs(live_version, 1)), None)

    def next_pairs(self, live_version: int, at_most: int) -> list[PairPlan]:
        """The pairs that the pool lacks, up to a number, chosen as by `next_pair`."""
        missing = min(at_most, self._count_missing(live_version))
        if missing == 0:
            return []
        prompts = self._store.prompts.for_pairs(self._tags)
        usable = [prompt for prompt in prompts if self._refusals[prompt] < _MAX_REFUSALS]
        counts = Counter(self._store.pairs.prompt_counts(self._base))
        return [self._plan_pair(usable, counts) for _ in range(missing if usable else 0)]

    def _plan_pair(self, usable: Sequence[str], counts: Counter[str]) -> PairPlan:
        fewest = min(counts[prompt] for prompt in usable)
        prompt = self._rng.choice([prompt for prompt in usable if counts[prompt] == fewest])
        counts[prompt] += 1
        return PairPlan(prompt=prompt, seeds=tuple(self._rng.sample(range(MAX_SEED + 1), self._num_images)))

    def record_refusal(self, plan: PairPlan) -> None:
        """Record that a pair was refused; after three refusals its prompt is left alone.

        The model's safety checker blacked it out, or its prompt has just been held out of training.
        """
        self._refusals[plan.prompt] += 1

    def is_paused_by_round(self) -> bool:
        """True while a round trains on the processor that rendering takes as well."""
        if not self._shares_cpu:
            return False
        current = self._store.rounds.current(self._base)
        return current is not None and current.status is RoundStatus.RUNNING

    def _count_missing(self, live_version: int) -> int:
        num_unvoted = self._count_unvoted()
        if num_unvoted >= min(LOW_POOL_SIZE, self._settings.size) and self.is_paused_by_round():
            return 0
        return max(
            0, self._settings.size - num_unvoted, (self._settings.size + 1) // 2 - self._count_unvoted(live_version)
        )

    def _count_unvoted(self, version: int | None = None) -> int:
        return self._store.pairs.count_unjudged(self._base, adapter_version=version, num_images=self._num_images)


def store_pair(
    store: Store, base: BaseModelRef, images: Sequence[NewImage], prompt_embeds: bytes, *, flagged: bool
) -> bool:
    """Store the images of a pair or set, with latents, and its encoded prompt for training; False when it is dropped.

    That is when the model's safety checker blacked out one of its images, which then says nothing, and when its prompt
    was held out of training while it was made.
    """
    if flagged:
        _log.info("a pair was dropped: the model's safety checker flagged it")
        return False
    image_a, image_b, *more = images
    pair = NewPair(image_a.provenance.prompt, image_a, image_b, prompt_embeds, PairSource.POOL, tuple(more))
    try:
        store.pairs.add(base, pair)
    except ConflictError as error:
        _log.info("a pair was thrown away: %s", error)
        return False
    return True


NUM_PROMPTS = 4
SEEDS = (101, 202)


@dataclass(frozen=True, slots=True)
class SheetPlan:
    """One row of the contact sheet: a prompt under one version, once per seed, made in one batch."""

    prompt: str
    version: int
    seeds: tuple[int, ...] = SEEDS


class ContactSheetPlanner:
    """Planner of the missing rows. The store is read once; from then on `mark_done` keeps count."""

    def __init__(self, store: Store, base: BaseModelRef) -> None:
        self._store = store
        self._base = base
        self._complete_rows: set[tuple[int, str]] | None = None
        self._prompts: list[str] = []
        self._skipped_versions: set[int] = set()

    def next_row(self, live_version: int) -> SheetPlan | None:
        """The next missing row, or None when the sheet is complete or there are no held-out prompts."""
        if self._complete_rows is None or not self._prompts:
            self._complete_rows, self._prompts = self._read()
        for version in self._versions(live_version):
            for prompt in self._prompts:
                if (version, prompt) not in self._complete_rows:
                    return SheetPlan(prompt=prompt, version=version)
        return None

    def mark_done(self, plan: SheetPlan) -> None:
        """Record that a row has been stored."""
        if self._complete_rows is not None:
            self._complete_rows.add((plan.version, plan.prompt))

    def skip_version(self, version: int) -> None:
        """Leave out a version that cannot be loaded, until the next start."""
        _log.warning("no contact sheet for version %d: it cannot be loaded", version)
        self._skipped_versions.add(version)

    def _versions(self, live_version: int) -> Iterator[int]:
        published = [adapter.version for adapter in self._store.adapters.list(self._base)]
        for version in dict.fromkeys([live_version, BASE_VERSION, *reversed(published)]):
            if version not in self._skipped_versions:
                yield version

    def _read(self) -> tuple[set[tuple[int, str]], list[str]]:
        """Read the complete rows, and the prompts: those in use already, else some spread over the held-out ones."""
        seeds_by_row: dict[tuple[int, str], set[int]] = {}
        for image in self._store.images.contact_sheet(self._base):
            provenance = image.provenance
            seeds_by_row.setdefault((provenance.adapter_version, provenance.prompt), set()).add(provenance.seed)
        complete = {row for row, seeds in seeds_by_row.items() if seeds.issuperset(SEEDS)}
        in_use = list(dict.fromkeys(prompt for _, prompt in seeds_by_row))[:NUM_PROMPTS]
        held_out = [prompt.text for prompt in self._store.prompts.list(held_out=True) if prompt.text not in in_use]
        return complete, [*in_use, *spread(held_out, NUM_PROMPTS - len(in_use))]


def spread(prompts: Sequence[str], count: int) -> list[str]:
    """Choose `count` prompts, or all where there are fewer, spread over the list."""
    count = min(count, len(prompts))
    return [prompts[index * len(prompts) // count] for index in range(count)]

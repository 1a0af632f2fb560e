"""The reference errors that one round works with: found in files or a checkpoint, computed as they are needed, shared
between the processes of a group, kept for the rounds to come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.training.data.dataset import PairDataset
from dmpo_app.training.data.slots import Draw
from dmpo_app.training.distributed.process_group import Group
from dmpo_app.training.loop.checkpoint import Checkpoint
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.prefetch import numerics_key
from dmpo_app.training.reference.reference_cache import ReferenceCache
from dmpo_app.training.rounds.round_plan import RoundPlan


class RoundReferences:
    """Belongs to one numerics at a time: `use` says to which before anything else is asked for."""

    train: PairErrors
    """Errors of the pairs that are trained on."""
    held_out: PairErrors | None
    """Errors of the held-out pairs, if there are any."""
    cache: ReferenceCache
    numerics: str
    """The key that the cache is kept under."""

    def __init__(self, plan: RoundPlan, denoiser: Denoiser, folder: Path, group: Group) -> None:
        self._plan = plan
        self._denoiser = denoiser
        self._folder = folder
        self._group = group
        self._compiled_with: LoraSpec | None = None
        self._num_shared = 0

    def use(self, micro_pairs: int, *, compiled_with: LoraSpec | None = None, found: Checkpoint | None = None) -> None:
        """Go on with those of passes over `micro_pairs` pairs; `compiled_with`: of a denoiser that is compiled now."""
        plan = self._plan
        self._micro_pairs = micro_pairs
        self._compiled_with = compiled_with or self._compiled_with
        self.numerics = numerics_key(
            self._denoiser,
            plan.train,
            plan.settings,
            base_fingerprint=plan.base_fingerprint,
            micro_pairs=micro_pairs,
            compiled_with=self._compiled_with,
        )
        if found is not None and found.numerics == self.numerics:
            self.cache = found.reference
        else:
            self.cache = ReferenceCache.load(self._folder, self.numerics)
        self._num_shared = len(self.cache)
        self.train = self._errors_of(plan.train)
        self.held_out = None if plan.held_out is None else self._errors_of(plan.held_out)

    def _errors_of(self, dataset: PairDataset) -> PairErrors:
        compiled = self._compiled_with is not None
        return PairErrors.of(self._denoiser, dataset, self.cache, self._plan.settings, compiled=compiled)

    def draws_of(self, step: int) -> list[Draw]:
        """What a step trains on, in all processes together."""
        settings = self._plan.settings
        return self._plan.train.rankings.draws_of_step(
            step,
            num_pairs=len(self._plan.train),
            batch_pairs=settings.batch_pairs,
            num_slots=settings.slots_per_pair,
            seed=self._plan.seed,
        )

    def compute_for(self, step: int) -> None:
        """The reference errors that this process's part of a step lacks, in full batches.

        One unknown draw costs a whole pass of the base model, so the batch is filled up with unknown draws of the steps
        to come. That halves a first round's passes (`benchmarks.hit_rates`).
        """
        missing = self.train.missing_references(self._own(self.draws_of(step)))
        step += 1
        while missing and len(missing) % self._micro_pairs and step < self._plan.settings.num_steps:
            wanted = self.train.missing_references([*missing, *self._own(self.draws_of(step))])
            missing = wanted[: -(-len(missing) // self._micro_pairs) * self._micro_pairs]
            step += 1
        self.train.compute_references(missing, batch_pairs=self._micro_pairs)

    def _own(self, draws: Sequence[Draw]) -> list[Draw]:
        part = self._group.part(len(draws), block=self._plan.train.rankings.block)
        return [draws[position % len(draws)] for position in part]

    def share(self) -> None:
        """Give every process of the group what the others have computed since the last time."""
        if self._group.size == 1:
            return
        for found in self._group.share(lambda: self.cache.since(self._num_shared)):
            for pair_id, slot, error_a, error_b in found:
                self.cache.add(pair_id, slot, (error_a, error_b))
        self._num_shared = len(self.cache)

    def save(self) -> None:
        """Keep them for the rounds to come. Raises StorageFull."""
        self.cache.save(self._folder, self.numerics)

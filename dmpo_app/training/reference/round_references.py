"""The reference errors of one round: loaded from files or a checkpoint, computed as they are needed, saved for later.

The processes of a group exchange them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.training.data.dataset import PairDataset
from dmpo_app.training.data.slots import Example
from dmpo_app.training.distributed.process_group import ProcessGroup
from dmpo_app.training.loop.checkpoint import Checkpoint
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.reference_cache import ReferenceCache, numerics_key
from dmpo_app.training.rounds.round_plan import RoundPlan


class RoundReferences:
    """Reference errors under one numerics key at a time; `switch_numerics` sets it and has to come first."""

    train: PairErrors
    """The errors of the pairs that are trained on."""
    held_out: PairErrors | None
    """The errors of the held-out pairs, if there are any."""
    cache: ReferenceCache
    numerics_key: str
    """The key of the cache."""

    def __init__(self, plan: RoundPlan, denoiser: Denoiser, folder: Path, group: ProcessGroup) -> None:
        self._plan = plan
        self._denoiser = denoiser
        self._folder = folder
        self._group = group
        self._compiled_with: LoraSpec | None = None
        self._num_exchanged = 0

    def switch_numerics(
        self, micro_pairs: int, *, compiled_with: LoraSpec | None = None, checkpoint: Checkpoint | None = None
    ) -> None:
        """Switch to the cache for passes over `micro_pairs` pairs.

        `compiled_with`: the denoiser is compiled now, with an adapter of this spec. `checkpoint`: its cache is taken
        where the key is the same.
        """
        plan = self._plan
        self._micro_pairs = micro_pairs
        self._compiled_with = compiled_with or self._compiled_with
        self.numerics_key = numerics_key(
            self._denoiser,
            plan.train,
            plan.settings,
            base_fingerprint=plan.base_fingerprint,
            micro_pairs=micro_pairs,
            compiled_with=self._compiled_with,
        )
        if checkpoint is not None and checkpoint.numerics_key == self.numerics_key:
            self.cache = checkpoint.reference_cache
        else:
            self.cache = ReferenceCache.load(self._folder, self.numerics_key)
        self._num_exchanged = len(self.cache)
        self.train = self._make_pair_errors(plan.train)
        self.held_out = None if plan.held_out is None else self._make_pair_errors(plan.held_out)

    def _make_pair_errors(self, dataset: PairDataset) -> PairErrors:
        compiled = self._compiled_with is not None
        return PairErrors.from_settings(self._denoiser, dataset, self.cache, self._plan.settings, compiled=compiled)

    def examples_for_step(self, step: int) -> list[Example]:
        """The examples of a step, in all processes together."""
        settings = self._plan.settings
        return self._plan.train.rankings.examples_for_step(
            step,
            num_pairs=len(self._plan.train),
            batch_pairs=settings.batch_pairs,
            num_slots=settings.slots_per_pair,
            seed=self._plan.seed,
        )

    def compute_for_step(self, step: int) -> None:
        """Compute the reference errors that this process's shard of a step lacks, in full batches.

        One missing example costs a whole pass of the base model, so the batch is filled up with missing examples of the
        steps to come. That halves a first round's passes (`benchmarks.hit_rates`).
        """
        missing = self.train.missing_references(self._shard_examples(self.examples_for_step(step)))
        step += 1
        while missing and len(missing) % self._micro_pairs and step < self._plan.settings.num_steps:
            missing_ahead = self.train.missing_references(
                [*missing, *self._shard_examples(self.examples_for_step(step))]
            )
            missing = missing_ahead[: -(-len(missing) // self._micro_pairs) * self._micro_pairs]
            step += 1
        self.train.compute_references(missing, batch_pairs=self._micro_pairs)

    def _shard_examples(self, examples: Sequence[Example]) -> list[Example]:
        positions = self._group.shard(len(examples), block=self._plan.train.rankings.block)
        return [examples[position % len(examples)] for position in positions]

    def exchange(self) -> None:
        """Exchange the errors computed since the last time between all processes of the group."""
        if self._group.world_size == 1:
            return
        for entries in self._group.all_gather(lambda: self.cache.entries_after(self._num_exchanged)):
            for pair_id, slot, error_a, error_b in entries:
                self.cache.add(pair_id, slot, (error_a, error_b))
        self._num_exchanged = len(self.cache)

    def save(self) -> None:
        """Save the errors for the rounds to come. Raises StorageFullError."""
        self.cache.save(self._folder, self.numerics_key)

"""Denoising errors on the images of a pair: with the adapter (policy) and without it (reference).

The reference's errors are loaded from files or a checkpoint, or computed as they are needed, and saved for later.

Shapes:  B examples;  C H W latent channels, height, width.
The denoiser's batches are 2B images: images a of all examples, then images b.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.protocol import Conditioning
from dmpo_app.diffusion.fused_lora import reference_mode
from dmpo_app.diffusion.lora import LoraSpec, lora_parameters
from dmpo_app.errors import RoundFailedError
from dmpo_app.objective import Needs, PairTerms, Residuals
from dmpo_app.settings import RoundSettings
from dmpo_app.training.data import training_examples
from dmpo_app.training.data.dataset import PairDataset
from dmpo_app.training.distributed.process_group import ProcessGroup
from dmpo_app.training.loop.compilation import zeroed_adapter
from dmpo_app.training.reference.reference_cache import ReferenceCache, numerics_key

if TYPE_CHECKING:
    from dmpo_app.training.loop.checkpoint import Checkpoint
    from dmpo_app.training.rounds.round_plan import RoundPlan


@dataclass(frozen=True, slots=True)
class NoisyBatch:
    """Noisy latents of a batch of examples, and the denoiser's targets for them."""

    noisy_latents: Tensor  # (2B, C, H, W)
    timesteps: Tensor  # (2B,)
    conditioning: Conditioning  # tensors of (2B, ...)
    target: Tensor  # (2B, C, H, W)


class PairErrors:
    """Denoising errors of one dataset's pairs. Errors and margins are float32, on the denoiser's device."""

    def __init__(
        self,
        denoiser: Denoiser,
        dataset: PairDataset,
        cache: ReferenceCache,
        *,
        num_slots: int,
        slot_seed: int,
        density: training_examples.TimestepDensity = training_examples.UNIFORM,
        weighting: Literal["none", "noise"] = "none",
        caption_dropout: float = 0.0,
        compiled: bool = False,
    ) -> None:
        """Prepare the errors. Raises RoundFailedError when captions are to be dropped without an empty prompt."""
        self._denoiser = denoiser
        self._device = denoiser.device
        self._dataset = dataset
        self._cache = cache
        self._num_slots = num_slots
        self._slot_seed = slot_seed
        self._density = density
        self._weighting = weighting
        self._caption_dropout = caption_dropout
        self._empty_prompt = _require_empty_prompt(denoiser) if caption_dropout > 0 else None
        self._compiled = compiled

    @classmethod
    def from_settings(
        cls,
        denoiser: Denoiser,
        dataset: PairDataset,
        cache: ReferenceCache,
        settings: RoundSettings,
        *,
        compiled: bool = False,
    ) -> PairErrors:
        """The errors of a round with these settings; `cache` is that of `numerics_key` of the same settings.

        `compiled`: the denoiser is, and has an adapter. All passes then go through one graph.
        """
        return cls(
            denoiser,
            dataset,
            cache,
            num_slots=settings.slots_per_pair,
            slot_seed=settings.seed,
            density=training_examples.TimestepDensity(
                settings.timestep_sampling, settings.timestep_mean, settings.timestep_scale
            ),
            weighting=settings.error_weighting,
            caption_dropout=settings.caption_dropout,
            compiled=compiled,
        )

    @property
    def device(self) -> torch.device:
        """The device of errors and margins."""
        return self._device

    @property
    def dataset(self) -> PairDataset:
        return self._dataset

    def terms(
        self,
        examples: Sequence[training_examples.Example],
        *,
        needs: Needs = Needs.ERRORS,
        with_residuals: bool = False,
    ) -> PairTerms:
        """Compute an objective's terms of each example; gradients flow into the adapter.

        The reference's errors come from the cache, where this batch or an earlier one of the same size has put them: by
        the same graph with the same shapes, so that an adapter which does nothing gives u = 0 exactly. An objective
        that needs the reference's whole prediction pays for a pass of it here.
        """
        batch = self._noisy_batch(examples)
        reference_residuals: tuple[Tensor | None, Tensor | None] = (None, None)
        if needs is Needs.PREDICTIONS:
            reference_residuals = self._reference_residuals(examples, batch)
        reference_a, reference_b = self.reference_errors(examples).unbind(1)
        residual_a, residual_b = self._residual(batch).chunk(2)
        policy_a, policy_b = _mean_square(residual_a), _mean_square(residual_b)
        residuals = None
        if with_residuals or needs is Needs.PREDICTIONS:
            residuals = Residuals(residual_a, residual_b, *reference_residuals)
        targets = self._dataset.targets[[example.pair for example in examples]].to(self._device)
        return PairTerms(policy_a, policy_b, reference_a, reference_b, targets, residuals)

    def _noisy_batch(self, examples: Sequence[training_examples.Example]) -> NoisyBatch:
        denoiser, data = self._denoiser, self._dataset
        slots = [
            training_examples.compute_slot(
                training_examples.set_id_from_pair_id(data.pair_ids[example.pair]),
                example.slot,
                num_slots=self._num_slots,
                num_timesteps=denoiser.num_timesteps,
                seed=self._slot_seed,
                density=self._density,
            )
            for example in examples
        ]
        pairs = [example.pair for example in examples]
        latents = torch.cat(data.latents(pairs, self._device))
        shape_CHW = tuple(latents.shape[1:])
        noise = (
            torch.stack([training_examples.noise_for_slot(slot, shape_CHW) for slot in slots])
            .to(self._device)
            .repeat(2, 1, 1, 1)
        )
        timesteps = torch.tensor([slot.timestep for slot in slots], device=self._device).repeat(2)
        return NoisyBatch(
            noisy_latents=denoiser.add_noise(latents, noise, timesteps),
            timesteps=timesteps,
            conditioning=data.conditioning(
                [self._prompt_for_example(example) for example in examples] * 2, self._device
            ),
            target=denoiser.training_target(latents, noise, timesteps),
        )

    def _prompt_for_example(self, example: training_examples.Example) -> int | Conditioning:
        """The pair, or the empty prompt where the slot drops the caption.

        With and without the adapter, and in held-out slots as in trained ones: an error is cached by its pair and slot
        alone, and a prompt changes sides when all would be held out. All versions are evaluated on the same slots.
        """
        if self._empty_prompt is None:
            return example.pair
        pair_id = training_examples.set_id_from_pair_id(self._dataset.pair_ids[example.pair])
        is_dropped = training_examples.drops_caption(
            pair_id, example.slot, share=self._caption_dropout, seed=self._slot_seed
        )
        return self._empty_prompt if is_dropped else example.pair

    def missing_references(
        self, examples: Iterable[training_examples.Example] | None = None
    ) -> list[training_examples.Example]:
        """The examples whose reference errors are not in the cache, each once; None: of all, pair by pair."""
        if examples is None:
            pairs = range(len(self._dataset))
            examples = (training_examples.Example(pair, slot) for pair in pairs for slot in range(self._num_slots))
        ids = self._dataset.pair_ids
        slot_examples = (training_examples.Example(example.pair, example.slot) for example in examples)
        return list(
            dict.fromkeys(example for example in slot_examples if (ids[example.pair], example.slot) not in self._cache)
        )

    def compute_references(self, examples: Sequence[training_examples.Example], *, batch_pairs: int) -> None:
        """Compute the reference errors that the cache lacks, `batch_pairs` examples at a time.

        The last batch is filled up with examples from itself: all have the shape that training has.
        """
        missing = self.missing_references(examples)
        for start in range(0, len(missing), batch_pairs):
            piece = missing[start : start + batch_pairs]
            self.reference_errors([piece[i % len(piece)] for i in range(batch_pairs)])

    def reference_errors(self, examples: Sequence[training_examples.Example]) -> Tensor:
        """The reference errors on images a and b of each example, (B, 2); missing ones are computed and cached."""
        keys = [(self._dataset.pair_ids[example.pair], example.slot) for example in examples]
        if any(key not in self._cache for key in keys):
            self._reference_residuals(examples, self._noisy_batch(examples))
        return torch.tensor([self._cache.get(*key) for key in keys], device=self._device)

    def _reference_residuals(
        self, examples: Sequence[training_examples.Example], batch: NoisyBatch
    ) -> tuple[Tensor, Tensor]:
        """Compute the reference's residuals on both images; its errors go into the cache."""
        with torch.no_grad(), self._reference_mode():
            residual_a, residual_b = self._residual(batch).chunk(2)
        errors = zip(_mean_square(residual_a).tolist(), _mean_square(residual_b).tolist(), strict=True)
        for example, pair_errors in zip(examples, errors, strict=True):
            self._cache.add(self._dataset.pair_ids[example.pair], example.slot, pair_errors)
        return residual_a, residual_b

    def _reference_mode(self) -> AbstractContextManager[None]:
        module = self._denoiser.module
        if self._compiled:
            return zeroed_adapter(lora_parameters(module, self._denoiser.family.component))
        return reference_mode(module)

    def _residual(self, batch: NoisyBatch) -> Tensor:
        """Prediction minus target of each image, (2B, C, H, W), in float32 whatever the denoiser computes in.

        Times the root of the errors' weight, if they have one: its mean square is then the weighted error.
        """
        # Without gradients torch compiles another graph, whose last bits may differ.
        one_graph = torch.enable_grad() if self._compiled else nullcontext()
        with mixed_precision(self._denoiser), one_graph:
            prediction = self._denoiser.predict(batch.noisy_latents, batch.timesteps, batch.conditioning)
        if not torch.is_grad_enabled():
            prediction = prediction.detach()
        residual = prediction.float() - batch.target
        if self._weighting == "none":
            return residual
        size = (residual.shape[-2], residual.shape[-1])
        weight_2B = self._denoiser.noise_error_weight(batch.timesteps, size)
        return residual * weight_2B.sqrt().view(-1, 1, 1, 1)


def _require_empty_prompt(denoiser: Denoiser) -> Conditioning:
    if denoiser.empty_prompt is None:
        raise RoundFailedError(
            "captions are to be dropped, but this denoiser came without an encoded empty prompt; was it loaded by "
            "other means than the trainer's? Set DMPO_ROUND__CAPTION_DROPOUT=0 to keep all captions"
        )
    return denoiser.empty_prompt()


def _mean_square(residual: Tensor) -> Tensor:
    """The mean square over C, H, W."""
    return residual.square().mean((1, 2, 3))


def mixed_precision(denoiser: Denoiser) -> AbstractContextManager[object]:
    """Autocast where the base model is in half precision: the adapter stays float32 and is rounded at its use.

    Without loss scaling in float16: gradients of margins in the thousands are far from where float16 runs out.
    """
    dtype = denoiser.dtype
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(denoiser.device.type, dtype=dtype)


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

    def examples_for_step(self, step: int) -> list[training_examples.Example]:
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

    def _shard_examples(self, examples: Sequence[training_examples.Example]) -> list[training_examples.Example]:
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

"""How well the denoiser restores the images of a pair: with the adapter (policy) and without it (reference).

Shapes:  B draws;  C H W latent channels, height, width.
The denoiser's batches are 2B images: images a of all draws, then images b.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.protocol import Conditioning
from dmpo_app.diffusion.lora import reference_mode
from dmpo_app.objective import margin
from dmpo_app.training.dataset import PairDataset
from dmpo_app.training.reference_cache import ReferenceCache
from dmpo_app.training.slots import Draw, noise_of, slot_of


@dataclass(frozen=True, slots=True)
class NoisyBatch:
    """The images of some draws with noise on them, and what the denoiser should make of them."""

    noisy_latents: Tensor  # (2B, C, H, W)
    timesteps: Tensor  # (2B,)
    conditioning: Conditioning  # tensors of (2B, ...)
    target: Tensor  # (2B, C, H, W)


class PairErrors:
    """Denoising errors of one dataset's pairs. Errors and margins are float32, on the denoiser's device."""

    def __init__(
        self, denoiser: Denoiser, dataset: PairDataset, cache: ReferenceCache, *, num_slots: int, slot_seed: int
    ) -> None:
        self._denoiser = denoiser
        self._device = denoiser.device
        self._dataset = dataset.to(self._device)
        self._cache = cache
        self._num_slots = num_slots
        self._slot_seed = slot_seed

    @property
    def dataset(self) -> PairDataset:
        return self._dataset

    def margins(self, draws: Sequence[Draw], *, beta: float) -> Tensor:
        """u of each draw, (B,); gradients flow into the adapter.

        The reference comes from the cache, where this batch or an earlier one of the same size has put it: by the same
        graph with the same shapes, so that an adapter which does nothing gives u = 0 exactly.
        """
        batch = self._noisy_batch(draws)
        reference_a, reference_b = self._reference_errors(draws, batch)
        policy_a, policy_b = self._errors(batch).chunk(2)
        return margin(policy_a, policy_b, reference_a, reference_b, beta=beta)

    def _noisy_batch(self, draws: Sequence[Draw]) -> NoisyBatch:
        denoiser, data = self._denoiser, self._dataset
        slots = [
            slot_of(
                data.pair_ids[draw.pair],
                draw.slot,
                num_slots=self._num_slots,
                num_timesteps=denoiser.num_timesteps,
                seed=self._slot_seed,
            )
            for draw in draws
        ]
        index = torch.tensor([draw.pair for draw in draws], device=self._device)
        latents = torch.cat([data.latents_a[index], data.latents_b[index]])
        shape_CHW = tuple(latents.shape[1:])
        noise = torch.stack([noise_of(slot, shape_CHW) for slot in slots]).to(self._device).repeat(2, 1, 1, 1)
        timesteps = torch.tensor([slot.timestep for slot in slots], device=self._device).repeat(2)
        return NoisyBatch(
            noisy_latents=denoiser.add_noise(latents, noise, timesteps),
            timesteps=timesteps,
            conditioning=data.conditioning_of([draw.pair for draw in draws] * 2),
            target=denoiser.training_target(latents, noise, timesteps),
        )

    def compute_references(self, draws: Sequence[Draw]) -> None:
        """Put the draws' reference errors into the cache."""
        self._reference_errors(draws, self._noisy_batch(draws))

    def _reference_errors(self, draws: Sequence[Draw], batch: NoisyBatch) -> tuple[Tensor, Tensor]:
        keys = [(self._dataset.pair_ids[draw.pair], draw.slot) for draw in draws]
        if any(key not in self._cache for key in keys):
            with torch.no_grad(), reference_mode(self._denoiser.module):
                errors_a, errors_b = self._errors(batch).chunk(2)
            for (pair_id, slot), a, b in zip(keys, errors_a.tolist(), errors_b.tolist(), strict=True):
                self._cache.add(pair_id, slot, (a, b))
        known = torch.tensor([self._cache.get(*key) for key in keys], device=self._device)
        return known[:, 0], known[:, 1]

    def _errors(self, batch: NoisyBatch) -> Tensor:
        """Mean squared error of each image over C, H, W, (2B,), in float32 whatever the denoiser computes in."""
        with _autocast(self._denoiser):
            prediction = self._denoiser.predict(batch.noisy_latents, batch.timesteps, batch.conditioning)
        return (prediction.float() - batch.target).square().mean((1, 2, 3))


def _autocast(denoiser: Denoiser) -> AbstractContextManager[object]:
    """Mixed precision where the base model is in half: the adapter stays float32 and is rounded at its use.

    Without loss scaling in float16: gradients of margins in the thousands are far from where float16 runs out.
    """
    dtype = denoiser.dtype
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(denoiser.device.type, dtype=dtype)

"""Image drift of an adapter, measured on a linear preview of latents: the trainer has no autoencoder.

A linear map from a latent's channels to red, green and blue, fitted on the round's own pairs, gives a small image of
every latent. That is too coarse for people and enough to notice that images grow garish, flat, soft, noisy or all
alike: the drift is the ratio between adapter and base model on the same prompts and noise.

Shapes:  M images;  C H W latent channels, height, width;  P prompts of a dataset.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Self

import numpy as np
import torch
from diffusers import SchedulerMixin
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.protocol import Conditioning
from dmpo_app.diffusion.fused_lora import reference_mode
from dmpo_app.diffusion.live_model import sample
from dmpo_app.domain.lineage import BaseModelRef, TrainingPair
from dmpo_app.errors import NotFoundError
from dmpo_app.scoring import measures
from dmpo_app.store import Store
from dmpo_app.training.data.dataset import PairDataset
from dmpo_app.training.data.training_examples import keyed_seed
from dmpo_app.training.reference.denoising_errors import mixed_precision
from dmpo_app.training.rounds.round_plan import RoundPlan

NUM_STEPS = 4
"""Enough for colours and outlines, which is what is measured: on the pocket model, ratios from 4 and from 8 steps are a
few hundredths apart. Images for people take 20 and more."""
SEEDS_PER_PROMPT = 2
"""The distance of a prompt's images is the diversity."""
NUM_FIT_PAIRS = 8
_LEAST = 1e-3
"""A base model whose images have less than this of a measure gives no ratio: there is nothing to be lost."""

RgbImages = NDArray[np.uint8]
_CPU = torch.device("cpu")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LatentRgbMap:
    """Linear map from latents in scaled space to RGB in 0..255: `weights` (C + 1, 3), the last row a bias.

    `explained_variance` is the share of the images' variance that the fit accounts for, at most 1.
    """

    weights: NDArray[np.float64]
    explained_variance: float

    @classmethod
    def fit(cls, latents: Tensor, images: RgbImages) -> Self:
        """Fit the map by least squares over all places of M latents (M, C, H, W) and their images (M, H, W, 3)."""
        design_matrix = _design_matrix(latents)
        rgb_targets = images.reshape(-1, 3).astype(np.float64)
        weights = np.asarray(np.linalg.lstsq(design_matrix, rgb_targets, rcond=None)[0], np.float64)
        total_sum = float(((rgb_targets - rgb_targets.mean(0)) ** 2).sum())
        residual_sum = float(((rgb_targets - design_matrix @ weights) ** 2).sum())
        return cls(weights, 1 - residual_sum / total_sum if total_sum > 0 else 1.0)

    def render(self, latents: Tensor) -> RgbImages:
        """Map latents to images (M, H, W, 3)."""
        count, _, height, width = latents.shape
        values = (_design_matrix(latents) @ self.weights).reshape(count, height, width, 3)
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def downscale_png(png: bytes, size: tuple[int, int]) -> RgbImages:
    """Downscale a stored PNG to a latent's size (H, W) by averaging; (H, W, 3)."""
    with Image.open(BytesIO(png)) as image:
        return np.asarray(image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BOX))


class LatentPreview:
    """Preview of the same few prompts and noises at every evaluation, with the adapter and, once, without.

    Half as many of the dataset's prompts as `num_images` (even), chosen by `seed`, two noises each.
    """

    def __init__(self, denoiser: Denoiser, data: PairDataset, rgb_map: LatentRgbMap, *, num_images: int, seed: int):
        self._denoiser = denoiser
        self._rgb_map = rgb_map
        self._conditioning = _preview_conditioning(data, num_images, seed)
        shape_CHW = tuple(data.latents([0], _CPU)[0].shape[1:])
        seeds = [keyed_seed(seed, "preview noise", number) for number in range(num_images)]
        self._noise = torch.stack(
            [torch.randn(shape_CHW, generator=torch.Generator().manual_seed(one)) for one in seeds]
        )
        self._base_measures: Mapping[str, float] | None = None

    def drift(self, *, batch_size: int) -> dict[str, float]:
        """Measure drift: saturation, contrast, sharpness and diversity of the adapter's images over the base model's.

        A fresh adapter gives exactly 1. At most `batch_size` images go through the denoiser at a time. What the base
        model has none of is left out; NaN where the adapter's latents are not finite. No gradient flows, no random
        number is drawn from anything global, and the denoiser is left as it was found.
        """
        if self._base_measures is None:
            with reference_mode(self._denoiser.module):
                self._base_measures = self._measure(batch_size)
        adapter_measures = self._measure(batch_size)
        return {name: adapter_measures[name] / base for name, base in self._base_measures.items() if base >= _LEAST}

    def _measure(self, batch_size: int) -> dict[str, float]:
        latents = self._sample_latents(batch_size)
        if not bool(torch.isfinite(latents).all()):
            return dict.fromkeys(_MEASURES, float("nan"))
        images = self._rgb_map.render(latents)
        return {name: measure(images) for name, measure in _MEASURES.items()}

    @torch.no_grad()
    def _sample_latents(self, batch_size: int) -> Tensor:
        """Sample the final latents of all images; on the CPU, float32.

        Without classifier-free guidance: the trainer knows no unconditional prompt, and it would cost twice as much.
        Denoisers that take guidance as an input are told what they are trained with.
        """
        denoiser, pieces = self._denoiser, []
        scheduler = _sampler(denoiser)
        with mixed_precision(denoiser):
            for start in range(0, len(self._noise), batch_size):
                piece = slice(start, start + batch_size)
                final = sample(
                    denoiser.module,
                    denoiser.family,
                    scheduler,
                    self._noise[piece].to(denoiser.device, denoiser.dtype),
                    {
                        name: tensor[piece].to(denoiser.device, denoiser.dtype)
                        for name, tensor in self._conditioning.items()
                    },
                    num_steps=NUM_STEPS,
                    guidance=None,
                )
                pieces.append(final.float().cpu())
        return torch.cat(pieces)


def _preview_conditioning(data: PairDataset, num_images: int, seed: int) -> Conditioning:
    """The conditioning of the preview, (num_images, ...): distinct prompts while there are any, each with its seeds."""
    first_of_prompt = {files.prompt_embeds: row for row, files in reversed(list(enumerate(data.files)))}
    order = sorted(first_of_prompt.values(), key=lambda row: keyed_seed(seed, "preview prompt", row))
    rows = [order[number // SEEDS_PER_PROMPT % len(order)] for number in range(num_images)]
    return data.conditioning(rows, _CPU)


def _sampler(denoiser: Denoiser) -> SchedulerMixin:
    """The family's usual sampler with the model's schedule."""
    config = denoiser.noise_scheduler.config
    # What the model's own file left open is the sampler's to decide, not the training schedule's.
    default_keys = set(config.get("_use_default_values", ()))
    process = denoiser.family.process
    return process.sampling_scheduler(process.samplers[0], {k: v for k, v in config.items() if k not in default_keys})


def _diversity(images: RgbImages) -> float:
    """Mean absolute difference, in 0..1, between the two images of a prompt."""
    values = measures.to_unit_range(images)
    return float(np.abs(values[0::SEEDS_PER_PROMPT] - values[1::SEEDS_PER_PROMPT]).mean())


_MEASURES: dict[str, Callable[[RgbImages], float]] = {
    "saturation": lambda images: float(measures.saturation(images).mean()),
    "contrast": lambda images: float(measures.contrast(images).mean()),
    "sharpness": lambda images: float(measures.sharpness(images).mean()),
    "diversity": _diversity,
}


def _design_matrix(latents: Tensor) -> NDArray[np.float64]:
    """The design matrix of the fit, (M H W, C + 1): the channels of every place, and 1."""
    channels = latents.shape[1]
    values = latents.double().permute(0, 2, 3, 1).reshape(-1, channels).numpy()
    return np.concatenate([values, np.ones((len(values), 1))], axis=1)


def fit_rgb_map(data: PairDataset, pngs: Sequence[tuple[int, bytes, bytes]]) -> LatentRgbMap:
    """Fit the map on some pairs of the dataset: (row, PNG of image a, PNG of image b) each; at least one."""
    latents = torch.cat(data.latents([row for row, _, _ in pngs], _CPU))
    size = (latents.shape[-2], latents.shape[-1])
    images = [downscale_png(a, size) for _, a, _ in pngs] + [downscale_png(b, size) for _, _, b in pngs]
    return LatentRgbMap.fit(latents, np.stack(images))


def read_preview(store: Store, base: BaseModelRef, denoiser: Denoiser, plan: RoundPlan) -> LatentPreview | None:
    """Load the preview that measures a round's drift; None if switched off, or if the pairs' images cannot be read."""
    if not plan.settings.health_images:
        return None
    return build_preview(pairs_for_fit(store, base, plan), store.files.read_image, denoiser, plan)


def pairs_for_fit(store: Store, base: BaseModelRef, plan: RoundPlan) -> list[TrainingPair]:
    """Select the pairs whose images the map of a round is fitted on."""
    return store.pairs.for_training(base, ids=sorted(plan.train.pair_ids[:NUM_FIT_PAIRS]))


def build_preview(
    pairs: Sequence[TrainingPair], read_image: Callable[[str], bytes], denoiser: Denoiser, plan: RoundPlan
) -> LatentPreview | None:
    """Build the preview from pairs that are read already; `read_image` gives the PNG of a sha256."""
    if not plan.settings.health_images:
        return None
    data = plan.train
    row_by_pair_id = {pair_id: row for row, pair_id in enumerate(data.pair_ids[:NUM_FIT_PAIRS])}
    try:
        pngs = [(row_by_pair_id[pair.id], read_image(pair.png_a), read_image(pair.png_b)) for pair in pairs]
        rgb_map = fit_rgb_map(data, pngs)
    except (NotFoundError, OSError, ValueError) as error:
        _log.warning("round %d cannot measure drift, the images of its pairs are unreadable: %s", plan.round_id, error)
        return None
    _log.info("the linear preview of latents explains %.0f %% of %d pairs", 100 * rgb_map.explained_variance, len(pngs))
    return LatentPreview(denoiser, data, rgb_map, num_images=plan.settings.health_images, seed=plan.seed)

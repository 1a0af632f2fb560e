"""What an adapter makes of images, seen without an autoencoder: the trainer holds the denoiser alone.

A linear map from a latent's channels to red, green and blue, fitted on the round's own pairs, shows a small picture of
every latent. That is too coarse to look at and enough to notice that pictures grow garish, flat, soft, noisy or all
alike: what is judged is the ratio between adapter and base model on the same prompts and noise.

Shapes:  M images;  C H W latent channels, height, width;  P prompts of a dataset.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from diffusers import SchedulerMixin
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.protocol import Conditioning
from dmpo_app.diffusion.live_model import sample
from dmpo_app.diffusion.lora import reference_mode
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.round import TrainingPair
from dmpo_app.errors import NotFound
from dmpo_app.scoring import measures
from dmpo_app.store import Store
from dmpo_app.training.data.dataset import PairDataset
from dmpo_app.training.data.slots import keyed_seed
from dmpo_app.training.reference.denoising_errors import mixed_precision
from dmpo_app.training.rounds.round_plan import RoundPlan

NUM_STEPS = 4
"""Enough for colours and outlines, which is what is measured: on the pocket model, ratios from 4 and from 8 steps are a
few hundredths apart. Pictures for people take 20 and more."""
SEEDS_PER_PROMPT = 2
"""Their distance is the diversity."""
FITTED_PAIRS = 8
_LEAST = 1e-3
"""A base model whose pictures have less than this of something gives no ratio: there is nothing to be lost."""

Pictures = NDArray[np.uint8]
_CPU = torch.device("cpu")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LatentColours:
    """The map: `weights` (C + 1, 3), the last row a bias, from latents in scaled space to RGB in 0..255.

    `explained` is the share of the pictures' variance that the fit accounts for, at most 1.
    """

    weights: NDArray[np.float64]
    explained: float

    @classmethod
    def fit(cls, latents: Tensor, pictures: Pictures) -> LatentColours:
        """Least squares over all places of M latents (M, C, H, W) and their pictures (M, H, W, 3)."""
        inputs = _columns(latents)
        wanted = pictures.reshape(-1, 3).astype(np.float64)
        weights = np.asarray(np.linalg.lstsq(inputs, wanted, rcond=None)[0], np.float64)
        spread = float(((wanted - wanted.mean(0)) ** 2).sum())
        missed = float(((wanted - inputs @ weights) ** 2).sum())
        return cls(weights, 1 - missed / spread if spread > 0 else 1.0)

    def pictures(self, latents: Tensor) -> Pictures:
        """(M, H, W, 3)."""
        count, _, height, width = latents.shape
        values = (_columns(latents) @ self.weights).reshape(count, height, width, 3)
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def small_picture(png: bytes, size: tuple[int, int]) -> Pictures:
    """A stored PNG at a latent's size (H, W), averaged, as (H, W, 3)."""
    with Image.open(BytesIO(png)) as image:
        return np.asarray(image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BOX))


class LatentPreview:
    """The same few prompts and noises at every look, with the adapter and, once, without.

    Half as many of the dataset's prompts as `num_images` (even), chosen by `seed`, two noises each.
    """

    def __init__(self, denoiser: Denoiser, data: PairDataset, colours: LatentColours, *, num_images: int, seed: int):
        self._denoiser = denoiser
        self._colours = colours
        self._conditioning = _conditioning_of(data, num_images, seed)
        shape_CHW = tuple(data.latents([0], _CPU)[0].shape[1:])
        seeds = [keyed_seed(seed, "preview noise", number) for number in range(num_images)]
        self._noise = torch.stack(
            [torch.randn(shape_CHW, generator=torch.Generator().manual_seed(one)) for one in seeds]
        )
        self._of_base: Mapping[str, float] | None = None

    def drift(self, *, batch_size: int) -> dict[str, float]:
        """Saturation, contrast, sharpness and diversity of the adapter's images over those of the base model's.

        A fresh adapter gives exactly 1. At most `batch_size` images go through the denoiser at a time. What the base
        model has none of is left out; NaN where the adapter's latents are not finite. No gradient flows, no random
        number is drawn from anything global, and the denoiser is left as it was found.
        """
        if self._of_base is None:
            with reference_mode(self._denoiser.module):
                self._of_base = self._measured(batch_size)
        of_adapter = self._measured(batch_size)
        return {name: of_adapter[name] / base for name, base in self._of_base.items() if base >= _LEAST}

    def _measured(self, batch_size: int) -> dict[str, float]:
        latents = self._sampled(batch_size)
        if not bool(torch.isfinite(latents).all()):
            return dict.fromkeys(_MEASURES, float("nan"))
        pictures = self._colours.pictures(latents)
        return {name: measure(pictures) for name, measure in _MEASURES.items()}

    @torch.no_grad()
    def _sampled(self, batch_size: int) -> Tensor:
        """Final latents of all images on the CPU, float32.

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


def _conditioning_of(data: PairDataset, num_images: int, seed: int) -> Conditioning:
    """(num_images, ...) each: distinct prompts while there are any, one after another with its seeds in a row."""
    first_of_prompt = {files.prompt_embeds: row for row, files in reversed(list(enumerate(data.files)))}
    order = sorted(first_of_prompt.values(), key=lambda row: keyed_seed(seed, "preview prompt", row))
    rows = [order[number // SEEDS_PER_PROMPT % len(order)] for number in range(num_images)]
    return data.conditioning(rows, _CPU)


def _sampler(denoiser: Denoiser) -> SchedulerMixin:
    """The family's usual sampler with the model's schedule."""
    config = denoiser.noise_scheduler.config
    # What the model's own file left open is the sampler's to decide, not the training schedule's.
    assumed = set(config.get("_use_default_values", ()))
    process = denoiser.family.process
    return process.sampling_scheduler(process.samplers[0], {k: v for k, v in config.items() if k not in assumed})


def _diversity(pictures: Pictures) -> float:
    """Mean absolute difference, in 0..1, between the two pictures of a prompt."""
    values = measures.unit(pictures)
    return float(np.abs(values[0::SEEDS_PER_PROMPT] - values[1::SEEDS_PER_PROMPT]).mean())


_MEASURES: dict[str, Callable[[Pictures], float]] = {
    "saturation": lambda pictures: float(measures.saturation(pictures).mean()),
    "contrast": lambda pictures: float(measures.contrast(pictures).mean()),
    "sharpness": lambda pictures: float(measures.sharpness(pictures).mean()),
    "diversity": _diversity,
}


def _columns(latents: Tensor) -> NDArray[np.float64]:
    """(M H W, C + 1): the channels of every place, and 1."""
    channels = latents.shape[1]
    values = latents.double().permute(0, 2, 3, 1).reshape(-1, channels).numpy()
    return np.concatenate([values, np.ones((len(values), 1))], axis=1)


def fit_colours(data: PairDataset, pngs: Sequence[tuple[int, bytes, bytes]]) -> LatentColours:
    """The map from some pairs of the dataset: (row, PNG of image a, PNG of image b) each; at least one."""
    latents = torch.cat(data.latents([row for row, _, _ in pngs], _CPU))
    size = (latents.shape[-2], latents.shape[-1])
    pictures = [small_picture(a, size) for _, a, _ in pngs] + [small_picture(b, size) for _, _, b in pngs]
    return LatentColours.fit(latents, np.stack(pictures))


def read_preview(store: Store, base: BaseModelRef, denoiser: Denoiser, plan: RoundPlan) -> LatentPreview | None:
    """What a round's images are watched with; None where they are not to be, or the pairs' images cannot be read."""
    if not plan.settings.health_images:
        return None
    return preview_of(fitted_pairs(store, base, plan), store.files.read_image, denoiser, plan)


def fitted_pairs(store: Store, base: BaseModelRef, plan: RoundPlan) -> list[TrainingPair]:
    """The pairs whose images the map of a round is fitted on."""
    return store.pairs.for_training(base, ids=sorted(plan.train.pair_ids[:FITTED_PAIRS]))


def preview_of(
    pairs: Sequence[TrainingPair], read_image: Callable[[str], bytes], denoiser: Denoiser, plan: RoundPlan
) -> LatentPreview | None:
    """`read_preview` of pairs that were looked up before; `read_image` gives the PNG of a sha256."""
    if not plan.settings.health_images:
        return None
    data = plan.train
    row_of = {pair_id: row for row, pair_id in enumerate(data.pair_ids[:FITTED_PAIRS])}
    try:
        pngs = [(row_of[pair.id], read_image(pair.png_a), read_image(pair.png_b)) for pair in pairs]
        colours = fit_colours(data, pngs)
    except (NotFound, OSError, ValueError) as error:
        _log.warning("round %d cannot watch its images, those of its pairs are unreadable: %s", plan.round_id, error)
        return None
    _log.info("the linear preview of latents explains %.0f %% of %d pairs", 100 * colours.explained, len(pngs))
    return LatentPreview(denoiser, data, colours, num_images=plan.settings.health_images, seed=plan.seed)

"""Stable Diffusion XL: a UNet, two CLIP text encoders, a pooled embedding, and the image's size as an input.

Shapes:  B images;  C H W latent channels, height, width;  S tokens of a prompt (77);  D P widths of its embeddings.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from diffusers import DiffusionPipeline, ModelMixin, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor

from dmpo_app.diffusion.families.components import UNET_TARGETS, posterior_mode, unet_latent_shape, unscale_latents
from dmpo_app.diffusion.families.noise_schedule import NoiseSchedule
from dmpo_app.diffusion.families.protocol import Conditioning, ModelFamily

PIXELS_PER_LATENT = 8
"""The scale of every autoencoder this family has been published with."""


class StableDiffusionXL:
    """Stable Diffusion XL, the base model (the refiner is another thing)."""

    name = "stable_diffusion_xl"
    component = "unet"
    pipeline_class = StableDiffusionXLPipeline
    denoiser_class = UNet2DConditionModel
    process = NoiseSchedule()
    targets = UNET_TARGETS
    default_targets = "attention"
    latent_multiple = 1

    def latent_shape(self, pipeline: DiffusionPipeline) -> tuple[int, int, int]:
        return unet_latent_shape(pipeline)

    def encode_prompt(self, pipeline: DiffusionPipeline, prompt: str) -> Conditioning:
        embeds, _, pooled, _ = pipeline.encode_prompt(prompt, device=pipeline.device, do_classifier_free_guidance=False)
        return {"prompt_embeds": embeds[0], "pooled_prompt_embeds": pooled[0]}

    def unconditional(self, pipeline: DiffusionPipeline) -> Conditioning | None:
        empty = self.encode_prompt(pipeline, "")
        if not pipeline.config.force_zeros_for_empty_prompt:
            return empty
        return {name: torch.zeros_like(tensor) for name, tensor in empty.items()}

    def forward(
        self,
        module: ModelMixin,
        latents: Tensor,
        time: Tensor,
        conditioning: Conditioning,
        *,
        guidance: float | None,  # noqa: ARG002 - the protocol's
    ) -> Tensor:
        embeds, pooled = conditioning["prompt_embeds"], conditioning["pooled_prompt_embeds"]
        added = {"text_embeds": pooled, "time_ids": time_ids(latents, embeds.dtype)}
        prediction = module(latents, time, embeds, added_cond_kwargs=added, return_dict=False)[0]
        return cast(Tensor, prediction)

    def decode(self, pipeline: DiffusionPipeline, latents: Tensor) -> tuple[Tensor, list[bool]]:
        with _upcast_vae(pipeline) as dtype:
            pixels = pipeline.vae.decode(_denormalise(pipeline, latents.to(dtype)), return_dict=False)[0]
        return pixels, [False] * len(latents)

    def encode(self, pipeline: DiffusionPipeline, pixels: Tensor) -> Tensor:
        usual = pipeline.vae.dtype
        with _upcast_vae(pipeline):
            return _normalise(pipeline, posterior_mode(pipeline.vae, pixels)).to(usual)


@contextmanager
def _upcast_vae(pipeline: DiffusionPipeline) -> Iterator[torch.dtype]:
    """Upcast the autoencoder to float32 where its configuration says that it overflows in float16; yields its dtype."""
    vae = pipeline.vae
    upcast = vae.dtype == torch.float16 and vae.config.force_upcast
    if not upcast:
        yield vae.dtype
        return
    vae.to(torch.float32)
    try:
        yield torch.float32
    finally:
        vae.to(torch.float16)


def time_ids(latents: Tensor, dtype: torch.dtype) -> Tensor:
    """The size conditioning (B, 6) of uncropped images: original size, crop's top and left, target size."""
    height, width = latents.shape[-2] * PIXELS_PER_LATENT, latents.shape[-1] * PIXELS_PER_LATENT
    row = torch.tensor([[height, width, 0, 0, height, width]], dtype=dtype, device=latents.device)
    return row.repeat(len(latents), 1)


def _denormalise(pipeline: DiffusionPipeline, latents: Tensor) -> Tensor:
    """Denormalise latents for the autoencoder; some models have a mean and a spread of each channel."""
    statistics = _statistics(pipeline, latents)
    if statistics is None:
        return unscale_latents(pipeline, latents)
    mean_C11, std_C11 = statistics
    return cast(Tensor, latents * std_C11 / pipeline.vae.config.scaling_factor + mean_C11)


def _normalise(pipeline: DiffusionPipeline, latents: Tensor) -> Tensor:
    """Normalise latents of the autoencoder: the inverse of `_denormalise`."""
    scaling_factor = pipeline.vae.config.scaling_factor
    statistics = _statistics(pipeline, latents)
    if statistics is None:
        return cast(Tensor, latents * scaling_factor)
    mean_C11, std_C11 = statistics
    return cast(Tensor, (latents - mean_C11) * scaling_factor / std_C11)


def _statistics(pipeline: DiffusionPipeline, latents: Tensor) -> tuple[Tensor, Tensor] | None:
    """Mean and spread of each channel, where the autoencoder's configuration has them."""
    config = pipeline.vae.config
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None or std is None:
        return None
    mean_C11, std_C11 = (torch.tensor(values).view(1, -1, 1, 1).to(latents) for values in (mean, std))
    return mean_C11, std_C11


FAMILY: ModelFamily = StableDiffusionXL()

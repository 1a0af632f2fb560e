"""Flux.1: a transformer of two-stream and one-stream blocks, CLIP (pooled) and T5, flow matching.

Guidance is an input of the denoiser (dev) or left out (schnell): there is no unconditional pass. Inside, latents are
packed into tokens of 2 x 2.

Shapes:  B images;  C H W latent channels, height, width;  S tokens of a prompt (512);  D P widths;
T tokens of the image, H/2 * W/2.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

import torch
from diffusers import DiffusionPipeline, FluxPipeline, FluxTransformer2DModel, ModelMixin
from torch import Tensor

from dmpo_app.diffusion.families.components import TRANSFORMER_TARGETS, decode_shifted, encode_shifted
from dmpo_app.diffusion.families.noise_schedule import FlowMatching
from dmpo_app.diffusion.families.protocol import Conditioning, ModelFamily

TRAINING_GUIDANCE = 3.5
"""Guidance input of a guided denoiser in training: that of the pairs' images, where nothing else is set."""


# Not proj_out of the one-stream blocks: peft goes by the ends of names, and the last layer is called the same.
_WIDE = (*TRANSFORMER_TARGETS["wide"], "proj_mlp")


class Flux:
    """Flux.1 dev and schnell."""

    name = "flux"
    component = "transformer"
    pipeline_class = FluxPipeline
    denoiser_class = FluxTransformer2DModel
    process = FlowMatching(even_sigmas=True)
    targets: Mapping[str, tuple[str, ...]] = MappingProxyType({**TRANSFORMER_TARGETS, "wide": _WIDE})
    default_targets = "attention"
    latent_multiple = 2

    def latent_shape(self, pipeline: DiffusionPipeline) -> tuple[int, int, int]:
        size = pipeline.default_sample_size
        return pipeline.transformer.config.in_channels // 4, size, size

    def encode_prompt(self, pipeline: DiffusionPipeline, prompt: str) -> Conditioning:
        embeds, pooled, _ = pipeline.encode_prompt(prompt, None, device=pipeline.device)
        return {"prompt_embeds": embeds[0], "pooled_prompt_embeds": pooled[0]}

    def unconditional(self, pipeline: DiffusionPipeline) -> Conditioning | None:  # noqa: ARG002 - the protocol's
        return None

    def forward(
        self, module: ModelMixin, latents: Tensor, time: Tensor, conditioning: Conditioning, *, guidance: float | None
    ) -> Tensor:
        batch, _, height, width = latents.shape
        embeds = conditioning["prompt_embeds"]
        guidance_input = TRAINING_GUIDANCE if guidance is None else guidance
        prediction = module(
            hidden_states=pack(latents),
            timestep=time.expand(batch).to(latents.dtype) / 1000,
            guidance=torch.full([batch], guidance_input, device=latents.device)
            if module.config.guidance_embeds
            else None,
            pooled_projections=conditioning["pooled_prompt_embeds"],
            encoder_hidden_states=embeds,
            txt_ids=torch.zeros(embeds.shape[1], 3, device=latents.device, dtype=embeds.dtype),
            img_ids=image_ids(height // 2, width // 2).to(latents.device, embeds.dtype),
            return_dict=False,
        )[0]
        return unpack(cast(Tensor, prediction), height, width)

    def decode(self, pipeline: DiffusionPipeline, latents: Tensor) -> tuple[Tensor, list[bool]]:
        return decode_shifted(pipeline, latents)

    def encode(self, pipeline: DiffusionPipeline, pixels: Tensor) -> Tensor:
        return encode_shifted(pipeline, pixels)


def pack(latents: Tensor) -> Tensor:
    """Pack latents (B, C, H, W) into tokens (B, T, 4 C): every 2 x 2 patch becomes one, rows first."""
    batch, channels, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, (height // 2) * (width // 2), channels * 4)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Inverse of `pack`, for latents of that height and width."""
    batch, _, channels = tokens.shape
    patches = tokens.reshape(batch, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(batch, channels // 4, height, width)


def image_ids(rows: int, columns: int) -> Tensor:
    """The position ids (T, 3) of the image's tokens: 0, row, column; float32 on the CPU."""
    row = torch.arange(rows, dtype=torch.float32)[:, None].expand(rows, columns)
    column = torch.arange(columns, dtype=torch.float32)[None, :].expand(rows, columns)
    return torch.stack([torch.zeros(rows, columns), row, column], dim=-1).reshape(-1, 3)


FAMILY: ModelFamily = Flux()

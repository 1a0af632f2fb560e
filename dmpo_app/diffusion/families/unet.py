"""What the families with a UNet have in common: which of its layers get an adapter, and how large its latents are."""

from __future__ import annotations

from collections.abc import Mapping

from diffusers import DiffusionPipeline
from torch import Tensor

UNET_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
UNET_WIDE = (*UNET_ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut")
"""The attention's neighbours and the residual blocks' convolutions too: what an image's layout is made of."""
UNET_TARGETS: Mapping[str, tuple[str, ...]] = {"attention": UNET_ATTENTION, "wide": UNET_WIDE}


def unet_latent_shape(pipeline: DiffusionPipeline) -> tuple[int, int, int]:
    """(C, H, W) that the UNet was made for."""
    channels, size = pipeline.unet.config.in_channels, pipeline.unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return channels, height, width


def unscaled(pipeline: DiffusionPipeline, latents: Tensor) -> Tensor:
    """Latents as the autoencoder takes them."""
    scaled: Tensor = latents / pipeline.vae.config.scaling_factor
    return scaled

"""Parts that model families share: autoencoders, UNets, transformers."""

from collections.abc import Mapping
from typing import cast

from diffusers import DiffusionPipeline
from torch import Tensor, nn


def posterior_mode(vae: nn.Module, pixels: Tensor) -> Tensor:
    """The mode of the autoencoder's posterior: latents (B, C, H, W) of pixels, neither scaled nor shifted.

    Not a sample. Images are encoded once and kept: one sample would be one noise, frozen for the whole training, and
    the same file would have other latents each time. The posterior is narrow next to the noise that training adds.
    Autoencoders without a posterior have one answer anyway.
    """
    encoded = vae.encode(pixels.to(cast(Tensor, next(vae.parameters())).dtype))  # type: ignore[operator]
    return cast(Tensor, encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents)


UNET_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
UNET_WIDE = (*UNET_ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut")
"""The attention's neighbours and the residual blocks' convolutions too: what an image's layout is made of."""
UNET_TARGETS: Mapping[str, tuple[str, ...]] = {"attention": UNET_ATTENTION, "wide": UNET_WIDE}


def unet_latent_shape(pipeline: DiffusionPipeline) -> tuple[int, int, int]:
    """The latent shape (C, H, W) that the UNet was made for."""
    channels, size = pipeline.unet.config.in_channels, pipeline.unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return channels, height, width


def unscale_latents(pipeline: DiffusionPipeline, latents: Tensor) -> Tensor:
    """Undo the latents' scaling, for the autoencoder."""
    scaled: Tensor = latents / pipeline.vae.config.scaling_factor
    return scaled


TRANSFORMER_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""The attention layers of the image's stream and of the text's."""
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")
TRANSFORMER_TARGETS: Mapping[str, tuple[str, ...]] = {
    "attention": TRANSFORMER_ATTENTION,
    "wide": (*TRANSFORMER_ATTENTION, *FEED_FORWARD),
}


def decode_shifted(pipeline: DiffusionPipeline, latents: Tensor) -> tuple[Tensor, list[bool]]:
    """Decode latents (z - shift_factor) * scaling_factor to pixels (B, 3, height, width); nothing is flagged."""
    config = pipeline.vae.config
    unscaled = (latents / config.scaling_factor) + config.shift_factor
    return pipeline.vae.decode(unscaled, return_dict=False)[0], [False] * len(latents)


def encode_shifted(pipeline: DiffusionPipeline, pixels: Tensor) -> Tensor:
    """Encode pixels (B, 3, height, width) as latents (z - shift_factor) * scaling_factor."""
    config = pipeline.vae.config
    scaled: Tensor = (posterior_mode(pipeline.vae, pixels) - config.shift_factor) * config.scaling_factor
    return scaled

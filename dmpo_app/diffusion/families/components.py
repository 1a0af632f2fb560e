"""What the families with a two-stream transformer have in common: which of its layers get an adapter, and decoding."""

from __future__ import annotations

from collections.abc import Mapping

from diffusers import DiffusionPipeline
from torch import Tensor

from dmpo_app.diffusion.families.autoencoder import posterior_mode

TRANSFORMER_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""Of the image's stream and of the text's."""
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")
TRANSFORMER_TARGETS: Mapping[str, tuple[str, ...]] = {
    "attention": TRANSFORMER_ATTENTION,
    "wide": (*TRANSFORMER_ATTENTION, *FEED_FORWARD),
}


def decode_shifted(pipeline: DiffusionPipeline, latents: Tensor) -> tuple[Tensor, list[bool]]:
    """Pixels (B, 3, height, width) of latents that are (z - shift_factor) * scaling_factor; nothing is flagged."""
    config = pipeline.vae.config
    unscaled = (latents / config.scaling_factor) + config.shift_factor
    return pipeline.vae.decode(unscaled, return_dict=False)[0], [False] * len(latents)


def encode_shifted(pipeline: DiffusionPipeline, pixels: Tensor) -> Tensor:
    """(z - shift_factor) * scaling_factor of pixels (B, 3, height, width)."""
    config = pipeline.vae.config
    scaled: Tensor = (posterior_mode(pipeline.vae, pixels) - config.shift_factor) * config.scaling_factor
    return scaled

"""What the families do alike with their autoencoders."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


def posterior_mode(vae: nn.Module, pixels: Tensor) -> Tensor:
    """The autoencoder's own latents (B, C, H, W) of pixels, neither scaled nor shifted: the mode of its posterior.

    Not a sample. Images are encoded once and kept: one sample would be one noise, frozen for the whole training, and
    the same file would have other latents each time. The posterior is narrow next to the noise that training adds.
    Autoencoders without a posterior have one answer anyway.
    """
    encoded = vae.encode(pixels.to(cast(Tensor, next(vae.parameters())).dtype))  # type: ignore[operator]
    return cast(Tensor, encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents)

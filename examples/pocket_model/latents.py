"""Stage two: encoding every training image to latents, so that the denoiser's training never runs the encoder.

Shapes:  N images;  latents (N, 8, 16, 16), float16 on disk, scaled to unit standard deviation.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from examples.pocket_model import checkpoint
from examples.pocket_model.autoencoder import as_pixels
from examples.pocket_model.renders import Renders

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LatentCache:
    """Encoded training images: `latents` (N, 8, 16, 16) float16, already multiplied by `scaling_factor`."""

    latents: Tensor
    scaling_factor: float


@torch.no_grad()
def encode_all(autoencoder: AutoencoderKL, renders: Renders, path: Path, *, batch: int = 50) -> LatentCache:
    """Load the latents at `path`, encoding all renders first if the file is not there."""
    if (state := checkpoint.load(path)) is None:
        parts = []
        for start in range(0, len(renders), batch):
            pixels = as_pixels(renders.take(range(start, min(start + batch, len(renders)))))
            with torch.autocast("cpu", torch.bfloat16):
                parts.append(autoencoder.encode(pixels).latent_dist.mean.half())
            if start % (100 * batch) == 0:
                logger.info(f"latents: {start}/{len(renders)}")
        raw = torch.cat(parts)
        scaling_factor = 1 / float(raw.float().std())
        state = {"latents": (raw.float() * scaling_factor).half(), "scaling_factor": scaling_factor}
        checkpoint.save_atomically(state, path)
    return LatentCache(state["latents"], state["scaling_factor"])

"""The last stage: fine-tuning the decoder on noisy latents.

A denoiser's latents are off by more than the autoencoder ever practised. The encoder stays as it is, so the cached
latents and the denoiser stay valid; the decoder sees cached latents with noise of various strength.

Shapes:  B images;  pixels (B, 3, 128, 128) in -1 to 1;  latents (B, 8, 16, 16) scaled to about unit deviation.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from examples.pocket_model.autoencoder import as_pixels, reconstruction_loss
from examples.pocket_model.latents import LatentCache
from examples.pocket_model.parallel import single_threaded_operators
from examples.pocket_model.progress import ReportIntervals, learning_rate, training_steps
from examples.pocket_model.renders import Renders
from examples.pocket_model.stage import Stage


@dataclass(frozen=True)
class DecoderPlan:
    """Length and strength of the last stage."""

    steps: int = 1500
    batch: int = 8
    peak_rate: float = 2e-3
    warmup: int = 30
    largest_noise: float = 0.16  # standard deviation, against latents of 1; each image gets a share of it
    seed: int = 4


class Decoder(nn.Module):
    """The decoding half of an autoencoder, on scaled latents."""

    def __init__(self, autoencoder: AutoencoderKL, scaling_factor: float) -> None:
        super().__init__()
        self.convolution, self.body = autoencoder.post_quant_conv, autoencoder.decoder
        self._scaling_factor = scaling_factor

    def forward(self, latents: Tensor) -> Tensor:
        pixels: Tensor = self.body(self.convolution(latents / self._scaling_factor))
        return pixels


def train_decoder(
    autoencoder: AutoencoderKL,
    cache: LatentCache,
    renders: Renders,
    path: Path,
    plan: DecoderPlan,
    intervals: ReportIntervals,
) -> None:
    """Train the autoencoder's decoder in place; goes on from the checkpoint at `path` if there is one."""
    decoder = Decoder(autoencoder, cache.scaling_factor)
    stage = Stage(decoder, saved_module=autoencoder, path=path, seed=plan.seed, rate=plan.peak_rate)

    def batch_loss(latents: Tensor, pixels: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            decoded = decoder(latents)
        return reconstruction_loss(decoded.float(), pixels)

    with single_threaded_operators():
        for step in training_steps("decoder", stage.step, plan.steps, intervals, lambda: stage.mean_loss, stage.save):
            indices = stage.index_generator.integers(len(renders), size=plan.batch)
            latents = cache.latents[torch.from_numpy(indices)].float()
            strength = plan.largest_noise * torch.rand((plan.batch, 1, 1, 1), generator=stage.generator)
            noisy = latents + strength * torch.randn(latents.shape, generator=stage.generator)
            pixels = as_pixels(renders.take(indices.tolist()))
            stage.update(learning_rate(step, plan.steps, plan.peak_rate, plan.warmup), batch_loss, noisy, pixels)

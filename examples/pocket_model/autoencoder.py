"""Stage one: training the autoencoder, which turns images into latents and back.

The loss is L1 and L2 on pixels, L1 on their differences (edges are what the eye checks), and a light KL.
The decoder also sees latents with noise on them: a denoiser's latents are never exact.

Shapes:  B images;  3 channels, 128 x 128 pixels in -1 to 1;  latents 8 x 16 x 16.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from examples.pocket_model.networks import LATENT_CHANNELS, LATENT_SIZE, build_autoencoder
from examples.pocket_model.parallel import single_threaded_operators
from examples.pocket_model.progress import ReportIntervals, learning_rate, training_steps
from examples.pocket_model.renders import Renders
from examples.pocket_model.stage import Stage


@dataclass(frozen=True)
class AutoencoderPlan:
    """Length and strength of the first stage."""

    steps: int = 2900
    batch: int = 8
    peak_rate: float = 4e-3
    warmup: int = 50
    kl_weight: float = 1e-3  # per latent number
    latent_noise: float = 0.1  # standard deviation, against latents of about 1
    seed: int = 1


def as_pixels(images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    """Convert images uint8 (B, 128, 128, 3) to pixels float32 (B, 3, 128, 128) in -1 to 1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def reconstruction_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Reconstruction loss: L1 and L2 on pixels, full to eighth size; L1 on neighbours' differences, to quarter size."""
    # Colour apart from lightness counts double: it is a small part of the error and all of "a red cat".
    grey = (prediction - target).mean(1, keepdim=True)
    error = torch.cat([prediction - target, 2 * (prediction - target - grey)], dim=1)
    loss = torch.zeros(())
    for scale in range(4):
        if scale:
            error = functional.avg_pool2d(error, 2)
        # The square finds wrong colours of whole things early on, where the absolute value is all outlines.
        loss = loss + error.abs().mean() + 4 * error.square().mean()
        if scale < 3:
            loss = loss + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return loss


def train_autoencoder(renders: Renders, path: Path, plan: AutoencoderPlan, intervals: ReportIntervals) -> AutoencoderKL:
    """Train the autoencoder; goes on from the checkpoint at `path` if there is one."""
    torch.manual_seed(plan.seed)
    model = build_autoencoder()
    stage = Stage(model, saved_module=model, path=path, seed=plan.seed, rate=plan.peak_rate)

    def batch_loss(*batch: Tensor) -> Tensor:
        return _loss(model, plan, *batch)

    with single_threaded_operators():
        for step in training_steps(
            "autoencoder", stage.step, plan.steps, intervals, lambda: stage.mean_loss, stage.save
        ):
            pixels = as_pixels(renders.take(stage.index_generator.integers(len(renders), size=plan.batch).tolist()))
            noise = torch.randn((2, plan.batch, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE), generator=stage.generator)
            stage.update(learning_rate(step, plan.steps, plan.peak_rate, plan.warmup), batch_loss, pixels, *noise)
    return model.eval()


def _loss(model: AutoencoderKL, plan: AutoencoderPlan, pixels: Tensor, own_noise: Tensor, more_noise: Tensor) -> Tensor:
    # bfloat16 makes the convolutions twice as fast on a processor that has it; the loss stays float32.
    with torch.autocast("cpu", torch.bfloat16):
        posterior = model.encode(pixels).latent_dist
        latents = posterior.mean + posterior.std * own_noise
        decoded = model.decode(latents + plan.latent_noise * more_noise).sample
    kl: Tensor = posterior.kl().float().mean() / latents[0].numel()
    return reconstruction_loss(decoded.float(), pixels) + plan.kl_weight * kl

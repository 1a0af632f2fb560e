"""The last stage: the decoder alone learns to be kind to latents that are not quite right.

A denoiser's latents are off by more than the autoencoder ever practised. The encoder stays as it is, so the cached
latents and the denoiser stay valid; the decoder sees cached latents with noise of various strength.

Shapes:  B pictures;  pixels (B, 3, 128, 128) in -1 to 1;  latents (B, 8, 16, 16) scaled to about unit deviation.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from dmpo_app.pocket import checkpoint
from dmpo_app.pocket.autoencoder import as_pixels, reconstruction_loss
from dmpo_app.pocket.latents import LatentCache
from dmpo_app.pocket.muon import Optimizers
from dmpo_app.pocket.parallel import SHARES, one_thread_an_operator, set_gradients
from dmpo_app.pocket.progress import Rhythm, learning_rate, paced
from dmpo_app.pocket.renders import Renders


@dataclass(frozen=True)
class DecoderPlan:
    """Length and strength of the last stage."""

    steps: int = 1500
    batch: int = 8
    peak_rate: float = 2e-3
    warmup: int = 30
    largest_noise: float = 0.16  # standard deviation, against latents of 1; each picture gets a share of it
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
    autoencoder: AutoencoderKL, cache: LatentCache, renders: Renders, path: Path, plan: DecoderPlan, rhythm: Rhythm
) -> None:
    """Train the autoencoder's decoder in place; goes on from the checkpoint at `path` if there is one."""
    decoder = Decoder(autoencoder, cache.scaling_factor)
    threads = ThreadPoolExecutor(SHARES)
    optimizers = Optimizers(decoder, threads, lr=plan.peak_rate)
    generator = torch.Generator().manual_seed(plan.seed)
    picker = np.random.default_rng(plan.seed)
    start = 0
    if (state := checkpoint.load(path)) is not None:
        autoencoder.load_state_dict(state["model"])
        optimizers.load_state_dict(state["optimizers"])
        checkpoint.restore_random_state(state["random"], generator, picker)
        start = state["step"]

    def save(step: int) -> None:
        random = checkpoint.random_state(generator, picker)
        parts = {"model": autoencoder.state_dict(), "optimizers": optimizers.state_dict()}
        checkpoint.save_atomically({**parts, "random": random, "step": step}, path)

    def loss_of(latents: Tensor, pixels: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            decoded = decoder(latents)
        return reconstruction_loss(decoded.float(), pixels)

    last = [0.0]
    with one_thread_an_operator():
        for step in paced("decoder", start, plan.steps, rhythm, lambda: last[0], save):
            indices = picker.integers(len(renders), size=plan.batch)
            latents = cache.latents[torch.from_numpy(indices)].float()
            strength = plan.largest_noise * torch.rand((plan.batch, 1, 1, 1), generator=generator)
            noisy = latents + strength * torch.randn(latents.shape, generator=generator)
            loss = set_gradients(decoder, threads, loss_of, noisy, as_pixels(renders.take(indices.tolist())))
            nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
            optimizers.step(learning_rate(step, plan.steps, plan.peak_rate, plan.warmup))
            last[0] += (1.0 if last[0] == 0 else 0.05) * (loss - last[0])

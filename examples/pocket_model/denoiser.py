"""Stage three: training text encoder and UNet together to predict the velocity of cached latents.

Captions are written afresh at every step: which attributes they name, in which words and order, changes each time,
so the model learns that what a caption leaves open is free. Some carry words that mean nothing, some are empty
(for classifier-free guidance).

Shapes:  B images;  L = 32 tokens;  latents and noise (B, 8, 16, 16);  prompt_embeds (B, L, 128).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from dmpo_app.pocket.language import add_filler_words, describe
from dmpo_app.pocket.scenes import Scene
from examples.pocket_model import checkpoint
from examples.pocket_model.latents import LatentCache
from examples.pocket_model.muon import Optimizers
from examples.pocket_model.networks import build_noise_scheduler, build_text_encoder, build_unet
from examples.pocket_model.parallel import NUM_SHARDS, set_gradients, single_threaded_operators
from examples.pocket_model.progress import ReportIntervals, learning_rate, training_steps
from examples.pocket_model.tokenizer import build_tokenizer


@dataclass(frozen=True)
class DenoiserPlan:
    """Length and strength of the third stage."""

    steps: int = 6_000
    batch: int = 48
    peak_rate: float = 2e-3
    warmup: int = 100
    ema_decay: float = 0.999
    empty_share: float = 0.12  # of captions dropped
    filler_share: float = 0.12  # of captions with unknown words
    seed: int = 2


class PocketDenoiser(nn.Module):
    """The two networks that are trained together; predicts the velocity from noisy latents and token ids."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text_encoder = build_text_encoder(tokenizer)
        self.unet = build_unet()

    def forward(self, noisy_latents: Tensor, timesteps: Tensor, input_ids: Tensor) -> Tensor:
        prompt_embeds = self.text_encoder(input_ids).last_hidden_state
        prediction: Tensor = self.unet(noisy_latents, timesteps, prompt_embeds).sample
        return prediction


class DenoiserTraining:
    """Training state of the denoiser: networks, optimizers, random generators, moving average."""

    def __init__(self, plan: DenoiserPlan) -> None:
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.tokenizer = build_tokenizer()
        self.model = PocketDenoiser(self.tokenizer)
        self.ema = PocketDenoiser(self.tokenizer).requires_grad_(False)
        self.ema.load_state_dict(self.model.state_dict())
        self._threads = ThreadPoolExecutor(NUM_SHARDS)
        self.optimizers = Optimizers(self.model, self._threads, lr=plan.peak_rate)
        self.noise_scheduler = build_noise_scheduler()
        self.generator = torch.Generator().manual_seed(plan.seed)
        self.index_generator = np.random.default_rng(plan.seed)
        self.step = 0
        self.mean_loss = 1.0

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": self.optimizers.state_dict(),
            "random": checkpoint.random_state(self.generator, self.index_generator),
            "step": self.step,
            "mean_loss": self.mean_loss,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizers.load_state_dict(state["optimizers"])
        checkpoint.restore_random_state(state["random"], self.generator, self.index_generator)
        self.step, self.mean_loss = state["step"], state["mean_loss"]

    def captions(self, scenes: Sequence[Scene]) -> list[str]:
        """One caption a scene: empty, plain or with words that mean nothing."""
        result = []
        for scene, lot in zip(scenes, self.index_generator.uniform(size=len(scenes)), strict=True):
            caption = "" if lot < self.plan.empty_share else describe(scene, self.index_generator)
            if lot > 1 - self.plan.filler_share:
                caption = add_filler_words(caption, self.index_generator)
            result.append(caption)
        return result

    def train_step(self, latents: Tensor, scenes: Sequence[Scene]) -> None:
        """One step of the optimizers and of the moving average."""
        plan = self.plan
        tokens = self.tokenizer(
            self.captions(scenes),
            padding="max_length",
            truncation=True,
            return_tensors="pt",
            max_length=self.tokenizer.model_max_length,
        )
        noise = torch.randn(latents.shape, generator=self.generator)
        timesteps = stratified_timesteps(len(latents), self.noise_scheduler, self.generator)
        noisy_latents = self.noise_scheduler.add_noise(latents, noise, timesteps)
        velocity = self.noise_scheduler.get_velocity(latents, noise, timesteps)
        batch = (noisy_latents, timesteps, tokens.input_ids, velocity)
        loss = set_gradients(self.model, self._threads, self._loss, *batch)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizers.step(learning_rate(self.step, plan.steps, plan.peak_rate, plan.warmup))
        self.step += 1
        self.mean_loss += 0.02 * (loss - self.mean_loss)
        self._average()

    def _loss(self, noisy_latents: Tensor, timesteps: Tensor, input_ids: Tensor, velocity: Tensor) -> Tensor:
        # bfloat16 for speed: the weights, their gradients and the average stay float32.
        with torch.autocast("cpu", torch.bfloat16):
            prediction = self.model(noisy_latents, timesteps, input_ids)
        return functional.mse_loss(prediction.float(), velocity)

    @torch.no_grad()
    def _average(self) -> None:
        # A short memory at first: the average would otherwise carry the random start for thousands of steps.
        decay = min(self.plan.ema_decay, (1 + self.step) / (10 + self.step))
        averages: list[Tensor] = list(self.ema.parameters())
        values: list[Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(averages, values, 1 - decay)


def stratified_timesteps(count: int, noise_scheduler: DDIMScheduler, generator: torch.Generator) -> Tensor:
    """Timesteps (count,): one from each of `count` equal strata, shuffled; the loss varies less from step to step."""
    total = int(noise_scheduler.config.num_train_timesteps)
    places = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    timesteps: Tensor = (places * total).long().clamp(max=total - 1)
    return timesteps[torch.randperm(count, generator=generator)]


def train_denoiser(
    cache: LatentCache, scenes: Sequence[Scene], path: Path, plan: DenoiserPlan, intervals: ReportIntervals
) -> DenoiserTraining:
    """Train the denoiser; goes on from the checkpoint at `path` if there is one.

    `scenes[i]` is the scene of `cache.latents[i]`.
    """
    training = DenoiserTraining(plan)
    if (state := checkpoint.load(path)) is not None:
        training.load_state_dict(state)

    def save(_: int) -> None:
        checkpoint.save_atomically(training.state_dict(), path)

    with single_threaded_operators():
        for _ in training_steps("denoiser", training.step, plan.steps, intervals, lambda: training.mean_loss, save):
            indices = training.index_generator.integers(len(scenes), size=plan.batch)
            training.train_step(cache.latents[torch.from_numpy(indices)].float(), [scenes[i] for i in indices])
    return training

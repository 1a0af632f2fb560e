"""One tiny model for each kind that the studio has to serve, and what the tests need to know of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from PIL.Image import Image
from torch import Tensor

from tests.tiny_models.flux import make_tiny_flux
from tests.tiny_models.sd3 import make_tiny_sd3
from tests.tiny_models.sdxl import make_tiny_sdxl
from tests.tiny_pipeline import make_tiny_pipeline

NUM_STEPS = 3


@dataclass(frozen=True, slots=True)
class Case:
    """`resolution` is what is rendered at, None for the model's own size; `latent_shape` (C, H, W) goes with it.

    `conditioning` are shapes of an encoded prompt that are good enough to train with: short ones.
    """

    name: str
    family: str
    make: Callable[[Path], Path]
    resolution: int | None
    latent_shape: tuple[int, int, int]
    guidance: float
    conditioning: Mapping[str, tuple[int, ...]]

    @property
    def is_flow(self) -> bool:
        return self.family in {"stable_diffusion_3", "flux"}

    def stock(self, folder: Path, **parts: Any) -> DiffusionPipeline:
        """The plain pipeline with the studio's usual sampler."""
        pipeline = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, **parts)
        pipeline.set_progress_bar_config(disable=True)
        if not self.is_flow:
            pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
        return pipeline

    def stock_encoding(self, pipeline: DiffusionPipeline, prompt: str) -> dict[str, Tensor]:
        """The plain pipeline's arguments in place of a prompt, batch of 1."""
        with torch.no_grad():
            if self.family == "stable_diffusion":
                embeds, negative = pipeline.encode_prompt(prompt, "cpu", 1, True)
                return {"prompt_embeds": embeds, "negative_prompt_embeds": negative}
            if self.family == "flux":
                embeds, pooled, _ = pipeline.encode_prompt(prompt, None)
                return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
            others = () if self.family == "stable_diffusion_xl" else (None, None)
            embeds, negative, pooled, pooled_negative = pipeline.encode_prompt(prompt, *others)
        return {
            "prompt_embeds": embeds,
            "pooled_prompt_embeds": pooled,
            "negative_prompt_embeds": negative,
            "negative_pooled_prompt_embeds": pooled_negative,
        }

    def stock_images(
        self, pipeline: DiffusionPipeline, prompts: Sequence[str], seeds: Sequence[int], guidance: float | None = None
    ) -> list[Image]:
        """The images of the plain pipeline, with frozen weights.

        For weights that want a gradient torch takes another path, with other last bits. Each prompt is encoded on its
        own, as the studio does, for the same reason.
        """
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False)
        side = self.resolution
        each = [self.stock_encoding(pipeline, prompt) for prompt in prompts]
        encoded = {name: torch.cat([one[name] for one in each]) for name in each[0]}
        size: dict[str, Any] = {} if side is None else {"height": side, "width": side}
        images: list[Image] = pipeline(
            **encoded,
            num_inference_steps=NUM_STEPS,
            guidance_scale=self.guidance if guidance is None else guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            **size,
        ).images
        return images


_SD = {"prompt_embeds": (16, 16)}
_LARGE = {"prompt_embeds": (20, 32), "pooled_prompt_embeds": (32,)}
_SMALL_POOLED = {"prompt_embeds": (20, 32), "pooled_prompt_embeds": (16,)}
_V_ZERO_SNR = partial(make_tiny_pipeline, prediction_type="v_prediction", zero_snr=True)
_SCHNELL = partial(make_tiny_flux, guided=False)

CASES = {
    case.name: case
    for case in (
        Case("sd1", "stable_diffusion", make_tiny_pipeline, None, (4, 8, 8), 7.5, _SD),
        Case("sd2-zero-snr", "stable_diffusion", _V_ZERO_SNR, None, (4, 8, 8), 7.5, _SD),
        Case("sdxl", "stable_diffusion_xl", make_tiny_sdxl, None, (4, 8, 8), 5.0, _SMALL_POOLED),
        Case("sd3", "stable_diffusion_3", make_tiny_sd3, None, (4, 8, 8), 4.5, _LARGE),
        Case("flux", "flux", make_tiny_flux, 64, (4, 16, 16), 3.5, _SMALL_POOLED),
        Case("flux-schnell", "flux", _SCHNELL, 64, (4, 16, 16), 0.0, _SMALL_POOLED),
    )
}

one_a_family = pytest.mark.parametrize(
    "case", [CASES[name] for name in ("sd1", "sdxl", "sd3", "flux")], ids=lambda case: case.name
)
"""For a test of what a family's models share: its others differ in the schedule alone, and in what Flux is told of
guidance, and have tests where that matters."""

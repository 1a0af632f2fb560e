"""Encoder of images and prompts from elsewhere into the latents and conditioning that the denoiser takes.

Shapes:  B images;  C H W latent channels, height, width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from dmpo_app.diffusion.base_models import detect_family
from dmpo_app.diffusion.families.protocol import Conditioning, ModelFamily
from dmpo_app.diffusion.families.registry import get_family
from dmpo_app.diffusion.loading import load_encoders

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Encoder:
    """Autoencoder and text encoders of a base model. `size` is (height, width) in pixels of the images it takes."""

    pipeline: DiffusionPipeline
    family: ModelFamily
    size: tuple[int, int]

    @classmethod
    def load(cls, source: str, *, device: str, dtype: str, resolution: int | None) -> Encoder:
        """Load the encoders for images of `resolution` pixels a side; None: of the model's own size.

        Raises like `loading.load_pipeline`.
        """
        pipeline, (_, height, width) = load_encoders(source, device=device, dtype=dtype, resolution=resolution)
        scale = pipeline.vae_scale_factor
        return cls(pipeline, get_family(detect_family(source)), (height * scale, width * scale))

    @torch.no_grad()
    def latents(self, images: Sequence[Pixels]) -> Tensor:
        """Scaled latents (B, C, H, W) on the CPU of images of `size`, each uint8 (height, width, 3)."""
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(self.pipeline.vae.device)
        return self.family.encode(self.pipeline, pixels.float() / 127.5 - 1).cpu()

    @torch.no_grad()
    def conditioning(self, prompt: str) -> Conditioning:
        """The encoded prompt, without batch dimension, on the CPU. One at a time, as the live model encodes it."""
        return _on_cpu(self.family.encode_prompt(self.pipeline, prompt))

    @torch.no_grad()
    def empty_conditioning(self) -> Conditioning:
        """The unconditional conditioning of guidance (zeros in some models), else the encoded empty prompt.

        Without batch dimension, on the CPU, like `conditioning`.
        """
        unconditional = self.family.unconditional(self.pipeline)
        return self.conditioning("") if unconditional is None else _on_cpu(unconditional)


def _on_cpu(conditioning: Conditioning) -> Conditioning:
    return {name: tensor.cpu() for name, tensor in conditioning.items()}


def resize_and_crop(image: Image.Image, size: tuple[int, int]) -> Pixels:
    """Resize an image until it just covers `size` (height, width) and crop the middle; uint8 (height, width, 3).

    Proportions are kept: what does not fit is cut off at both ends of the longer side. Smaller images are enlarged.
    """
    height, width = size
    scale = max(height / image.height, width / image.width)
    wide, high = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    resized = image.resize((wide, high), Image.Resampling.LANCZOS) if image.size != (wide, high) else image
    left, top = (wide - width) // 2, (high - height) // 2
    return np.asarray(resized.crop((left, top, left + width, top + height)), dtype=np.uint8)

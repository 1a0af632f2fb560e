"""Adapters with random tensors, for tests that need versions that visibly differ and no training."""

import torch
from diffusers import ModelMixin

from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.diffusion.families.components import UNET_WIDE
from dmpo_app.diffusion.lora import LoraSpec, expected_shapes

SPEC = LoraSpec(rank=4, lora_alpha=6.0, target_modules=UNET_WIDE)


def random_adapter(denoiser: ModelMixin, seed: int, spec: LoraSpec = SPEC, *, scale: float = 0.1) -> AdapterWeights:
    """Normal tensors of every shape that `spec` asks for; large enough to change the images of a tiny model."""
    generator = torch.Generator().manual_seed(seed)
    return AdapterWeights(
        spec=spec,
        tensors={
            key: torch.randn(shape, generator=generator) * scale
            for key, shape in expected_shapes(denoiser, spec).items()
        },
    )

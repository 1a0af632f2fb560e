"""Latents and prompt embeddings as the bytes of safetensors files, and back.

Bytes and not arrays, because bfloat16 has no numpy. Each file holds one tensor under a fixed name:

    latents        (C, H, W)  an image's final latents in the *scaled* latent space: what the denoiser works on and
                              what noise is added to in training; the autoencoder decodes latents / scaling_factor
    prompt_embeds  (S, D)     the text encoder's last hidden state of one prompt, without the unconditional half

The dtype is the model's: float32 on a CPU, float16 or bfloat16 on most GPUs. The same tensor gives the same bytes.
"""

from __future__ import annotations

from typing import cast

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dmpo_app.errors import StudioError

LATENTS = "latents"
PROMPT_EMBEDS = "prompt_embeds"


def dump_latents(latents_CHW: Tensor) -> bytes:
    return _dump(LATENTS, latents_CHW, num_dimensions=3)


def load_latents(data: bytes) -> Tensor:
    """(C, H, W) on the CPU, in the dtype it was stored in. Raises StudioError for any other file."""
    return _load(LATENTS, data, num_dimensions=3)


def dump_prompt_embeds(prompt_embeds_SD: Tensor) -> bytes:
    return _dump(PROMPT_EMBEDS, prompt_embeds_SD, num_dimensions=2)


def load_prompt_embeds(data: bytes) -> Tensor:
    """(S, D) on the CPU, in the dtype it was stored in. Raises StudioError for any other file."""
    return _load(PROMPT_EMBEDS, data, num_dimensions=2)


def _dump(name: str, tensor: Tensor, *, num_dimensions: int) -> bytes:
    if tensor.ndim != num_dimensions:
        raise ValueError(f"{name} must have {num_dimensions} dimensions (no batch), got shape {tuple(tensor.shape)}")
    return cast(bytes, save({name: tensor.detach().cpu().contiguous()}))


def _load(name: str, data: bytes, *, num_dimensions: int) -> Tensor:
    try:
        tensor = cast(Tensor, load(data)[name])
    except (SafetensorError, KeyError, ValueError) as error:
        raise StudioError(f"a stored {name} file cannot be read ({error}); was it damaged on disk?") from error
    if tensor.ndim != num_dimensions:
        raise StudioError(f"a stored {name} file has shape {tuple(tensor.shape)}, expected {num_dimensions} dimensions")
    return tensor

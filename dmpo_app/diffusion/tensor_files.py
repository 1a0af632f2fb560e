"""Serialization of latents and encoded prompts as the bytes of safetensors files.

Bytes and not arrays, because bfloat16 has no numpy. Tensors stand under fixed names:

    latents               (C, H, W)  an image's final latents in the *scaled* latent space: what the denoiser works
                                     on and what noise is added to in training; its family decodes them
    prompt_embeds         (S, D)     one prompt's tokens as the denoiser attends to them
    pooled_prompt_embeds  (P,)       the prompt as a whole, in families whose denoiser takes that too

Latents have a file each; the encoded prompt, without its unconditional half, is one file of one or more tensors. The
dtype is the model's: float32 on a CPU, float16 or bfloat16 on most GPUs. The same tensors give the same bytes.
"""

from collections.abc import Mapping
from typing import cast

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dmpo_app.errors import StudioError

LATENTS = "latents"
PROMPT_EMBEDS = "prompt_embeds"


def dump_latents(latents_CHW: Tensor) -> bytes:
    """Serialize an image's latents (C, H, W) in their dtype."""
    return _dump({LATENTS: latents_CHW}, LATENTS, num_dimensions=3)


def load_latents(data: bytes) -> Tensor:
    """Parse latents (C, H, W), on the CPU in the stored dtype. Raises StudioError for any other file."""
    return _load(data, LATENTS, num_dimensions=3)[LATENTS]


def dump_conditioning(conditioning: Mapping[str, Tensor]) -> bytes:
    """Serialize the conditioning of one prompt, without batch dimension; `prompt_embeds` must be among it."""
    return _dump(conditioning, PROMPT_EMBEDS, num_dimensions=2)


def load_conditioning(data: bytes) -> dict[str, Tensor]:
    """Parse one prompt's tensors by name, on the CPU as they were stored. Raises StudioError for any other file."""
    return _load(data, PROMPT_EMBEDS, num_dimensions=2)


def _dump(tensors: Mapping[str, Tensor], name: str, *, num_dimensions: int) -> bytes:
    shape = tuple(tensors[name].shape)
    if len(shape) != num_dimensions:
        raise ValueError(f"{name} must have {num_dimensions} dimensions (no batch), got shape {shape}")
    return cast(bytes, save({key: tensors[key].detach().cpu().contiguous() for key in sorted(tensors)}))


def _load(data: bytes, name: str, *, num_dimensions: int) -> dict[str, Tensor]:
    try:
        tensors = cast(dict[str, Tensor], load(data))
        shape = tuple(tensors[name].shape)
    except (SafetensorError, KeyError, ValueError) as error:
        raise StudioError(f"a stored {name} file cannot be read ({error}); was it damaged on disk?") from error
    if len(shape) != num_dimensions:
        raise StudioError(f"a stored {name} file has shape {shape}, expected {num_dimensions} dimensions")
    return tensors

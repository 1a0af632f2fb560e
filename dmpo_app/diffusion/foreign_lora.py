"""LoRA files of others: read by diffusers itself onto the model, then taken off it as an adapter of one rank.

diffusers knows the namings there are (its own, older ones, kohya's) and where each keeps its rank and lora_alpha. Files
whose layers differ in rank or scaling become one of the largest rank: A gets rows of zeros, B columns of zeros, and the
scaling is multiplied into B, which changes no image but for rounding.

Shapes:  r rank of a layer, R of the adapter.
    Linear  A (r, in), B (out, r);   Conv2d  A (r, in, kh, kw), B (out, r, 1, 1)
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dmpo_app.diffusion import lora
from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.diffusion.families.protocol import ModelFamily
from dmpo_app.diffusion.fused_lora import ADAPTER_NAME, lora_layers
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.errors import AdapterCorruptError, AdapterMismatchError

_ENDS_OF_A = ("lora_down.weight", "lora_A.weight", "lora.down.weight", "_lora.down.weight", "lora_A.default.weight")
_TEXT_ENCODERS = ("lora_te", "text_encoder")


def read_foreign_lora(pipeline: DiffusionPipeline, family: ModelFamily, path: Path) -> AdapterWeights:
    """Read a LoRA file for the pipeline's denoiser, which must carry no adapter and carries none afterwards.

    Raises AdapterCorruptError for a file that is no LoRA in safetensors, AdapterMismatchError for one that does not fit
    the model or changes more of it than the denoiser.
    """
    keys = _keys(path)
    _check_kind(keys, path)
    denoiser: nn.Module = getattr(pipeline, family.component)
    try:
        # peft draws initial values, which the file's replace
        with torch.random.fork_rng(devices=[]), _without_warning_of_text_encoders():
            cast(Any, pipeline).load_lora_weights(
                str(path.parent), weight_name=path.name, adapter_name=ADAPTER_NAME, local_files_only=True
            )
        adapter = _take_off(denoiser, family.component, path)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError) as error:
        raise AdapterMismatchError(
            f"{path} could not be loaded as a LoRA of this base model ({type(error).__name__}: {error}); was it "
            "trained on a model of another family?"
        ) from error
    finally:
        cast(Any, pipeline).unload_lora_weights()
    num_layers = len(adapter.tensors) // 2
    num_in_file = sum(key.endswith(_ENDS_OF_A) for key in keys)
    if num_layers < num_in_file:
        raise AdapterMismatchError(
            f"{path} does not fit the base model: of its {num_in_file} layers the model has {num_layers}; was it "
            "trained on a model of another family?"
        )
    return adapter


@contextmanager
def _without_warning_of_text_encoders() -> Iterator[None]:
    """Without diffusers' warning that a file has nothing for the text encoders, which is wanted here."""
    logger = logging.getLogger("diffusers.loaders.lora_base")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _keys(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise AdapterCorruptError(f"{path} is no valid safetensors file: {error}") from error


def _check_kind(keys: list[str], path: Path) -> None:
    if not any(key.endswith(_ENDS_OF_A) for key in keys):
        raise AdapterCorruptError(f"{path} holds no LoRA layers; expected a LoRA in diffusers' or kohya's naming")
    if any("dora_scale" in key or "lora_magnitude" in key for key in keys):
        raise AdapterMismatchError(f"{path} is a DoRA, which scales the base model's weights; expected a plain LoRA")
    if any(key.startswith(_TEXT_ENCODERS) for key in keys):
        raise AdapterMismatchError(
            f"{path} changes the text encoder as well, and only adapters of the denoiser can be compared; name a LoRA "
            "that was trained without the text encoder"
        )


def _take_off(denoiser: nn.Module, component: str, path: Path) -> AdapterWeights:
    """Copy the loaded layers as one adapter, float32 on the CPU."""
    layers = lora_layers(denoiser)
    if not layers:
        raise AdapterMismatchError(
            f"{path} has no layer of the base model's {component}; was it trained on a model of another family?"
        )
    if any(cast(Any, layer).lora_B[ADAPTER_NAME].bias is not None for layer in layers.values()):
        raise AdapterMismatchError(f"{path} has biases beside its matrices; expected a plain LoRA")
    ranks = {name: layer.r[ADAPTER_NAME] for name, layer in layers.items()}
    scalings = {name: float(cast(Any, layer).scaling[ADAPTER_NAME]) for name, layer in layers.items()}
    rank = max(ranks.values())
    is_uniform = len(set(ranks.values())) == len(set(scalings.values())) == 1
    scaling = next(iter(scalings.values())) if is_uniform else 1.0
    if scaling <= 0:
        raise AdapterMismatchError(f"{path} states a scaling of {scaling}; expected a positive one")
    state = lora.lora_state(denoiser, component)
    tensors: dict[str, Tensor] = {}
    for name in layers:
        key_a, key_b = (f"{component}.{name}.lora_{matrix}.weight" for matrix in "AB")
        tensors[key_a] = _pad(state[key_a], rank, dim=0)
        tensors[key_b] = _pad(state[key_b] * (scalings[name] / scaling), rank, dim=1)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise AdapterCorruptError(f"{path} holds values that are not finite")
    spec = LoraSpec(rank, scaling * rank, tuple(layers), component)
    return AdapterWeights(spec, dict(sorted(tensors.items())))


def _pad(tensor: Tensor, rank: int, *, dim: int) -> Tensor:
    """Append zeros along the dimension of the rank."""
    shape = list(tensor.shape)
    shape[dim] = rank - shape[dim]
    return torch.cat([tensor, tensor.new_zeros(shape)], dim) if shape[dim] else tensor

"""Loading base models of any family: the whole pipeline to render with, or the denoiser alone to train."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline, ModelMixin
from packaging.version import Version
from safetensors import SafetensorError
from torch import nn

from dmpo_app.diffusion.base_models import family_of, locate, require_safety_checker
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.devices import resolve_device
from dmpo_app.diffusion.families.protocol import ModelFamily
from dmpo_app.diffusion.families.registry import family_named
from dmpo_app.diffusion.quantization import Quantize, quantization_config
from dmpo_app.errors import ModelUnavailable, SetupProblem

SafetyChecker = Literal["auto", "on", "off"]

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_pipeline(
    source: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantize: Quantize = "none",
    safety_checker: SafetyChecker = "auto",
) -> DiffusionPipeline:
    """The whole pipeline, frozen and in evaluation mode, from a folder or hub id; safetensors only.

    A safety checker that the model comes with is kept (images it flags come out black) unless `safety_checker` is off;
    a model whose `model_index.json` has `"safety_checker": [null, null]` runs without, but not if it is on. `quantize`
    is for the denoiser alone. Raises ModelUnavailable, UnknownFamily or SetupProblem.
    """
    if safety_checker == "on":
        require_safety_checker(source)
    folder, family = locate(source), family_named(family_of(source))
    where = resolve_device(device)
    wanted = resolve_dtype(dtype, where)
    _no_progress_bars()
    quantized = quantization_config(quantize, where, wanted)
    with _explained(source, where):
        parts = _left_out(folder, family)
        if safety_checker == "off":
            parts |= _no_safety_checker(family)
        if quantized is not None:
            parts[family.component] = _load_module(folder, family, wanted, quantized)
        pipeline = family.pipeline_class.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, **_dtype_keyword(wanted), **parts
        )
        pipeline.to(where)
    _freeze(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_denoiser(source: str, *, device: str = "auto", dtype: str = "auto", quantize: Quantize = "none") -> Denoiser:
    """Denoiser and noise schedule only, frozen and in evaluation mode. Raises like `load_pipeline`."""
    folder, family = locate(source), family_named(family_of(source))
    where = resolve_device(device)
    wanted = resolve_dtype(dtype, where)
    quantized = quantization_config(quantize, where, wanted)
    with _explained(source, where):
        module = _load_module(folder, family, wanted, quantized)
        module.to(where).eval().requires_grad_(False)
        noise_scheduler = family.process.load_scheduler(folder)
    return Denoiser(module, noise_scheduler, family, quantize)


def load_encoders(
    source: str, *, device: str = "auto", dtype: str = "auto", resolution: int | None = None
) -> tuple[DiffusionPipeline, tuple[int, int, int]]:
    """The pipeline without its denoiser, to encode images and prompts with, and (C, H, W) of the latents it makes.

    The safety checker, which only looks at what is rendered, is left out too. Raises like `load_pipeline`.
    """
    folder, family = locate(source), family_named(family_of(source))
    where = resolve_device(device)
    wanted = resolve_dtype(dtype, where)
    _no_progress_bars()
    with _explained(source, where):
        parts = _left_out(folder, family)
        config = family.denoiser_class.load_config(folder, subfolder=family.component, local_files_only=True)
        with torch.device("meta"):  # its shapes alone: they say how large its latents are
            parts[family.component] = family.denoiser_class.from_config(config)
        parts |= _no_safety_checker(family)
        pipeline = family.pipeline_class.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, **_dtype_keyword(wanted), **parts
        )
        shape = latent_shape_at(pipeline, family, resolution)
        setattr(pipeline, family.component, None)
        pipeline.to(where)
    _freeze(pipeline)
    return pipeline, shape


def latent_shape_at(pipeline: DiffusionPipeline, family: ModelFamily, resolution: int | None) -> tuple[int, int, int]:
    """(C, H, W) for a square image of `resolution` pixels, or of the model's own size."""
    channels, height, width = family.latent_shape(pipeline)
    if resolution is None:
        return channels, height, width
    unit = pipeline.vae_scale_factor * family.latent_multiple
    if resolution % unit:
        raise SetupProblem(f"a resolution of {resolution} is not a multiple of this model's {unit} pixels")
    side = resolution // pipeline.vae_scale_factor
    return channels, side, side


def free_memory() -> None:
    """Let a model that nothing refers to any more go, on the GPU too, so that the next one gets its place."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is float32 on a CPU, bfloat16 on a GPU that has it, else float16."""
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.float16 if device.type == "mps" else torch.float32


def _no_progress_bars() -> None:
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def _freeze(pipeline: DiffusionPipeline) -> None:
    """Every part in evaluation mode, without gradients."""
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)


def _left_out(folder: Path, family: ModelFamily) -> dict[str, Any]:
    """Parts that the model was saved without, such as T5; diffusers misses them unless it is told, with None."""
    index = family.pipeline_class.load_config(folder)
    optional = family.pipeline_class._optional_components
    return {name: None for name, entry in index.items() if entry == [None, None] and name not in optional}


def _no_safety_checker(family: ModelFamily) -> dict[str, Any]:
    """What leaves the safety checker out, of a family that can have one."""
    if "safety_checker" not in family.pipeline_class._optional_components:
        return {}
    return {"safety_checker": None, "requires_safety_checker": False}


def _load_module(folder: Path, family: ModelFamily, dtype: torch.dtype, quantized: Any | None) -> ModelMixin:
    return family.denoiser_class.from_pretrained(
        folder,
        subfolder=family.component,
        use_safetensors=True,
        local_files_only=True,
        **_dtype_keyword(dtype),
        **({} if quantized is None else {"quantization_config": quantized}),
    )


def _dtype_keyword(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """from_pretrained's name for it: diffusers 0.42 deprecated the one that earlier versions know."""
    return {"dtype" if Version(diffusers.__version__) >= Version("0.42") else "torch_dtype": dtype}


@contextmanager
def _explained(source: str, device: torch.device) -> Iterator[None]:
    """Turn what loading can raise into ModelUnavailable that says what to do."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _too_large(source, device) from error
    except (OSError, ValueError, KeyError, AttributeError, ImportError, SafetensorError, RuntimeError) as error:
        if "memory" in str(error).lower() and "alloc" in str(error).lower():  # the CPU allocator's RuntimeError
            raise _too_large(source, device) from error
        raise ModelUnavailable(
            f"{source} could not be loaded ({type(error).__name__}: {error}); is the folder complete and unchanged?"
        ) from error


def _too_large(source: str, device: torch.device) -> ModelUnavailable:
    dtype = "DMPO_RENDER__DTYPE=float16 or " if device.type != "cpu" else "DMPO_RENDER__DTYPE=bfloat16 or "
    return ModelUnavailable(
        f"{source} does not fit into the memory of {device}; set {dtype}DMPO_RENDER__QUANTIZE=nf4 (on a CUDA GPU), "
        "a smaller DMPO_BASE_MODEL, or free memory that other programs hold"
    )

"""Loading base models of any family: the whole pipeline to render with, the denoiser alone to train, or the encoder.

The encoder turns images and prompts from elsewhere into the latents and conditioning that the denoiser takes.

Shapes:  B images;  C H W latent channels, height, width.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import diffusers
import numpy as np
import numpy.typing as npt
import torch
import transformers
from diffusers import DiffusionPipeline, ModelMixin
from packaging.version import Version
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from dmpo_app.diffusion.base_models import detect_family, locate, require_safety_checker
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.protocol import Conditioning, ModelFamily
from dmpo_app.diffusion.families.registry import get_family
from dmpo_app.diffusion.placement import Quantize, quantization_config, resolve_device
from dmpo_app.errors import ModelUnavailableError, SetupError
from dmpo_app.io.logs import log_libraries_too

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
    """Load the whole pipeline, frozen and in evaluation mode, from a folder or hub id; safetensors only.

    A safety checker that the model comes with is kept (images it flags come out black) unless `safety_checker` is off;
    a model whose `model_index.json` has `"safety_checker": [null, null]` runs without, but not if it is on. `quantize`
    is for the denoiser alone. Raises ModelUnavailableError, UnknownFamilyError or SetupError.
    """
    if safety_checker == "on":
        require_safety_checker(source)
    folder, family = locate(source), get_family(detect_family(source))
    torch_device = resolve_device(device)
    torch_dtype = resolve_dtype(dtype, torch_device)
    _no_progress_bars()
    quantization = quantization_config(quantize, torch_device, torch_dtype)
    with _translate_load_errors(source, torch_device):
        parts = _omitted_parts(folder, family)
        if safety_checker == "off":
            parts |= _no_safety_checker(family)
        if quantization is not None:
            parts[family.component] = _load_module(folder, family, torch_dtype, quantization)
        pipeline = family.pipeline_class.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, **_dtype_keyword(torch_dtype), **parts
        )
        pipeline.to(torch_device)
    _freeze(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_denoiser(source: str, *, device: str = "auto", dtype: str = "auto", quantize: Quantize = "none") -> Denoiser:
    """Load denoiser and noise schedule only, frozen and in evaluation mode. Raises like `load_pipeline`."""
    folder, family = locate(source), get_family(detect_family(source))
    torch_device = resolve_device(device)
    torch_dtype = resolve_dtype(dtype, torch_device)
    quantization = quantization_config(quantize, torch_device, torch_dtype)
    with _translate_load_errors(source, torch_device):
        module = _load_module(folder, family, torch_dtype, quantization)
        module.to(torch_device).eval().requires_grad_(False)
        noise_scheduler = family.process.load_scheduler(folder)
    return Denoiser(module, noise_scheduler, family, quantize)


def load_encoders(
    source: str, *, device: str = "auto", dtype: str = "auto", resolution: int | None = None
) -> tuple[DiffusionPipeline, tuple[int, int, int]]:
    """Load the pipeline without its denoiser, to encode images and prompts; also return (C, H, W) of its latents.

    The safety checker, which only checks rendered images, is left out too. Raises like `load_pipeline`.
    """
    folder, family = locate(source), get_family(detect_family(source))
    torch_device = resolve_device(device)
    torch_dtype = resolve_dtype(dtype, torch_device)
    _no_progress_bars()
    with _translate_load_errors(source, torch_device):
        parts = _omitted_parts(folder, family)
        config = family.denoiser_class.load_config(folder, subfolder=family.component, local_files_only=True)
        with torch.device("meta"):  # its shapes alone: they say how large its latents are
            parts[family.component] = family.denoiser_class.from_config(config)
        parts |= _no_safety_checker(family)
        pipeline = family.pipeline_class.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, **_dtype_keyword(torch_dtype), **parts
        )
        shape = latent_shape_at(pipeline, family, resolution)
        setattr(pipeline, family.component, None)
        pipeline.to(torch_device)
    _freeze(pipeline)
    return pipeline, shape


def latent_shape_at(pipeline: DiffusionPipeline, family: ModelFamily, resolution: int | None) -> tuple[int, int, int]:
    """The latent shape (C, H, W) of a square image of `resolution` pixels, or of the model's own size."""
    channels, height, width = family.latent_shape(pipeline)
    if resolution is None:
        return channels, height, width
    unit = pipeline.vae_scale_factor * family.latent_multiple
    if resolution % unit:
        raise SetupError(f"a resolution of {resolution} is not a multiple of this model's {unit} pixels")
    side = resolution // pipeline.vae_scale_factor
    return channels, side, side


def free_memory() -> None:
    """Free the memory of models that nothing refers to any more, on the GPU too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The torch dtype of a setting; `auto` is float32 on a CPU, bfloat16 on a GPU that has it, else float16."""
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.float16 if device.type == "mps" else torch.float32


def _no_progress_bars() -> None:
    log_libraries_too()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def _freeze(pipeline: DiffusionPipeline) -> None:
    """Put every part in evaluation mode, without gradients."""
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)


def _omitted_parts(folder: Path, family: ModelFamily) -> dict[str, Any]:
    """Keywords (None) for the parts that the model was saved without, such as T5; diffusers insists on them."""
    index = family.pipeline_class.load_config(folder)
    optional = family.pipeline_class._optional_components
    return {name: None for name, entry in index.items() if entry == [None, None] and name not in optional}


def _no_safety_checker(family: ModelFamily) -> dict[str, Any]:
    """Keywords that leave out the safety checker of a family that can have one."""
    if "safety_checker" not in family.pipeline_class._optional_components:
        return {}
    return {"safety_checker": None, "requires_safety_checker": False}


def _load_module(folder: Path, family: ModelFamily, dtype: torch.dtype, quantization: Any | None) -> ModelMixin:
    return family.denoiser_class.from_pretrained(
        folder,
        subfolder=family.component,
        use_safetensors=True,
        local_files_only=True,
        **_dtype_keyword(dtype),
        **({} if quantization is None else {"quantization_config": quantization}),
    )


def _dtype_keyword(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The dtype under the keyword of this diffusers' from_pretrained: 0.42 deprecated the earlier one."""
    return {"dtype" if Version(diffusers.__version__) >= Version("0.42") else "torch_dtype": dtype}


@contextmanager
def _translate_load_errors(source: str, device: torch.device) -> Iterator[None]:
    """Translate loading errors into ModelUnavailableError with advice."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _too_large(source, device) from error
    except (OSError, ValueError, KeyError, AttributeError, ImportError, SafetensorError, RuntimeError) as error:
        if "memory" in str(error).lower() and "alloc" in str(error).lower():  # the CPU allocator's RuntimeError
            raise _too_large(source, device) from error
        raise ModelUnavailableError(
            f"{source} could not be loaded ({type(error).__name__}: {error}); is the folder complete and unchanged?"
        ) from error


def _too_large(source: str, device: torch.device) -> ModelUnavailableError:
    dtype = "DMPO_RENDER__DTYPE=float16 or " if device.type != "cpu" else "DMPO_RENDER__DTYPE=bfloat16 or "
    return ModelUnavailableError(
        f"{source} does not fit into the memory of {device}; set {dtype}DMPO_RENDER__QUANTIZE=nf4 (on a CUDA GPU), "
        "a smaller DMPO_BASE_MODEL, or free memory that other programs hold"
    )


Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Encoder:
    """Autoencoder and text encoders of a base model. `size` is (height, width) in pixels of the images it takes."""

    pipeline: DiffusionPipeline
    family: ModelFamily
    size: tuple[int, int]

    @classmethod
    def load(cls, source: str, *, device: str, dtype: str, resolution: int | None) -> Self:
        """Load the encoders for images of `resolution` pixels a side; None: of the model's own size.

        Raises like `load_pipeline`.
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

"""Stable Diffusion 1.x: loading it, encoding prompts, and the forward process that training needs.

Shapes:  B images;  C H W latent channels, height, width;  S tokens of a prompt (77);  D their width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import diffusers
import torch
import transformers
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from packaging.version import Version
from safetensors import SafetensorError
from torch import Tensor

from dmpo_app.diffusion.family import locate
from dmpo_app.errors import ModelUnavailable, SetupProblem

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Denoiser:
    """What training needs of a model: neither autoencoder nor text encoder."""

    unet: UNet2DConditionModel
    noise_scheduler: DDPMScheduler


def resolve_device(name: str) -> torch.device:
    """`auto` is cuda, then mps, then cpu. Raises SetupProblem for a device this machine or this torch lacks."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise SetupProblem(f"the device {name!r} cannot be used: {error}; set DMPO_RENDER__DEVICE=auto") from error
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is float32 on a CPU, bfloat16 on a GPU that has it, else float16."""
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.float16 if device.type == "mps" else torch.float32


def load_pipeline(source: str, *, device: str = "auto", dtype: str = "auto") -> StableDiffusionPipeline:
    """The whole pipeline, frozen and in evaluation mode, from a folder or hub id; safetensors only.

    A safety checker that the model comes with is kept (images it flags come out black); a model whose
    `model_index.json` has `"safety_checker": [null, null]` runs without. Raises ModelUnavailable or UnknownFamily.
    """
    folder = locate(source)
    where = resolve_device(device)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    with _explained(source, where):
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, **_dtype_keyword(resolve_dtype(dtype, where))
        )
        pipeline.to(where)
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    return cast(StableDiffusionPipeline, pipeline)


def load_denoiser(source: str, *, device: str = "auto", dtype: str = "auto") -> Denoiser:
    """UNet and noise schedule only, frozen and in evaluation mode. Raises like `load_pipeline`."""
    folder = locate(source)
    where = resolve_device(device)
    with _explained(source, where):
        unet = UNet2DConditionModel.from_pretrained(
            folder,
            subfolder="unet",
            use_safetensors=True,
            local_files_only=True,
            **_dtype_keyword(resolve_dtype(dtype, where)),
        )
        unet.to(where).eval().requires_grad_(False)
        noise_scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler", local_files_only=True)
    check_prediction_type(noise_scheduler.config.prediction_type)
    return Denoiser(unet=unet, noise_scheduler=noise_scheduler)


def check_prediction_type(prediction_type: str) -> None:
    """Raise ModelUnavailable unless the target of this prediction type is known."""
    if prediction_type not in {"epsilon", "v_prediction"}:
        raise ModelUnavailable(f"models with prediction type {prediction_type!r} cannot be trained here")


@torch.inference_mode()
def encode_prompts(pipeline: StableDiffusionPipeline, prompts: Sequence[str]) -> Tensor:
    """(len(prompts), S, D) in the model's dtype on its device: the text encoder's last hidden states.

    A prompt longer than the tokenizer's limit is cut, and the log says what was lost. One prompt at a time, so that
    a prompt's embedding does not depend on what else is asked for.
    """
    embeds = [pipeline.encode_prompt(prompt, pipeline.device, 1, False)[0] for prompt in prompts]
    return torch.cat(embeds)


def add_noise(noise_scheduler: DDPMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """x_t = sqrt(alphabar_t) x_0 + sqrt(1 - alphabar_t) noise, in float32.

    latents, noise (B, C, H, W), scaled latent space; timesteps (B,) whole numbers in 0..num_train_timesteps-1.
    """
    return cast(Tensor, noise_scheduler.add_noise(latents.float(), noise.float(), timesteps))


def training_target(noise_scheduler: DDPMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the denoiser should predict, float32 (B, C, H, W): the noise, or the velocity
    sqrt(alphabar_t) noise - sqrt(1 - alphabar_t) x_0 (Salimans and Ho 2022), as the model's prediction type says."""
    prediction_type = noise_scheduler.config.prediction_type
    check_prediction_type(prediction_type)
    if prediction_type == "epsilon":
        return noise.float()
    return cast(Tensor, noise_scheduler.get_velocity(latents.float(), noise.float(), timesteps))


def predict(unet: UNet2DConditionModel, noisy_latents: Tensor, timesteps: Tensor, prompt_embeds: Tensor) -> Tensor:
    """The denoiser's prediction in float32, (B, C, H, W); gradients flow.

    noisy_latents (B, C, H, W), timesteps (B,), prompt_embeds (B, S, D); all on the denoiser's device, in any dtype.
    """
    dtype = unet.dtype
    prediction = unet(noisy_latents.to(dtype), timesteps, prompt_embeds.to(dtype), return_dict=False)[0]
    return cast(Tensor, prediction).float()


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
        f"{source} does not fit into the memory of {device}; set {dtype}a smaller DMPO_BASE_MODEL, "
        "or free memory that other programs hold"
    )

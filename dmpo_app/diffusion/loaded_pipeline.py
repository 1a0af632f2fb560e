"""A pipeline that somebody has loaded, lent to a training: its encoders, its denoiser, and it as it was afterwards."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModelMixin
from torch import Tensor, nn

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.protocol import ModelFamily
from dmpo_app.diffusion.families.registry import FAMILIES, get_family
from dmpo_app.diffusion.loading import Encoder, latent_shape_at
from dmpo_app.diffusion.lora import detach
from dmpo_app.errors import SetupError, UnknownFamilyError

_EDGE_VALUES = 1024


@dataclass(frozen=True)
class LoadedPipeline:
    """A loaded pipeline as the base model of a training, on its own device and in its own dtype."""

    pipeline: DiffusionPipeline

    def __post_init__(self) -> None:
        """Raise UnknownFamilyError or SetupError for a pipeline that cannot be trained as it is."""
        if _family_name(self.pipeline) is None:
            raise UnknownFamilyError(
                f"a {type(self.pipeline).__name__} cannot be trained; supported are {', '.join(FAMILIES)}"
            )
        if getattr(self.module, "peft_config", None):
            raise SetupError(
                "the pipeline carries LoRA adapters; call pipe.fuse_lora() and pipe.unload_lora_weights() to train on "
                "top of them, or pipe.unload_lora_weights() alone to train without them"
            )
        if any(hasattr(part, "_hf_hook") for part in self._parts):
            raise SetupError(
                "the pipeline's parts are moved to the GPU and back (CPU offload), which training cannot work with; "
                "call pipe.remove_all_hooks() and pipe.to('cuda')"
            )

    @property
    def source(self) -> str:
        """The id or folder that it was loaded from, as far as it knows."""
        return str(self.pipeline.config.get("_name_or_path") or f"a loaded {type(self.pipeline).__name__}")

    @cached_property
    def family(self) -> ModelFamily:
        return get_family(_family_name(self.pipeline) or "")

    @property
    def module(self) -> ModelMixin:
        """The denoiser's module, which is trained in place."""
        name = "unet" if getattr(self.pipeline, "unet", None) is not None else "transformer"
        module: ModelMixin = getattr(self.pipeline, name)
        return module

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 (hex) over the parts' configurations and the first and last values of every tensor in them."""
        digest = hashlib.sha256()
        for name, part in sorted(self.pipeline.components.items()):
            digest.update(f"{name}\0{type(part).__name__}\0".encode())
            if name == "scheduler":
                digest.update(repr(sorted(part.config.items())).encode())
            if isinstance(part, nn.Module):
                for key, tensor in part.state_dict().items():
                    digest.update(f"{key}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
                    digest.update(_edges(tensor))
        return digest.hexdigest()

    def encoder(self, resolution: int | None) -> Encoder:
        """The encoders, for images of `resolution` pixels a side or of the model's own size. Raises SetupError."""
        _, height, width = latent_shape_at(self.pipeline, self.family, resolution)
        scale = self.pipeline.vae_scale_factor
        return Encoder(self.pipeline, self.family, (height * scale, width * scale))

    def denoiser(self) -> Denoiser:
        """The denoiser with its training schedule. Raises ModelUnavailableError for a schedule not understood."""
        scheduler = self.pipeline.scheduler
        config = {**scheduler.config, "_class_name": type(scheduler).__name__}
        return Denoiser(self.module, self.family.process.training_scheduler(config, self.source), self.family)

    @property
    def _parts(self) -> list[nn.Module]:
        return [part for part in self.pipeline.components.values() if isinstance(part, nn.Module)]

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Context manager for a training: all parts frozen and in evaluation mode inside, as they were on exit.

        Modes, `requires_grad`, gradient checkpointing and the scheduler are restored; weights are never written to.
        """
        scheduler, progress_bar = self.pipeline.scheduler, getattr(self.pipeline, "_progress_bar_config", None)
        modules = [module for part in self._parts for module in part.modules()]
        parameters = [parameter for part in self._parts for parameter in part.parameters()]
        training = [module.training for module in modules]
        trainable = [parameter.requires_grad for parameter in parameters]
        checkpointing = [
            (module, module.gradient_checkpointing) for module in modules if hasattr(module, "gradient_checkpointing")
        ]
        if self.module.is_gradient_checkpointing:
            self.module.disable_gradient_checkpointing()
        try:
            for part in self._parts:
                part.eval().requires_grad_(False)
            self.pipeline.scheduler = type(scheduler).from_config(scheduler.config)
            self.pipeline.set_progress_bar_config(disable=True)
            yield
        finally:
            detach(self.module)
            self.pipeline.scheduler = scheduler
            self.pipeline.set_progress_bar_config(**(progress_bar or {}))
            for module, was_training in zip(modules, training, strict=True):
                module.training = was_training
            for parameter, was_trainable in zip(parameters, trainable, strict=True):
                parameter.requires_grad_(was_trainable)
            for module, was_checkpointing in checkpointing:
                module.gradient_checkpointing = was_checkpointing


def _family_name(pipeline: Any) -> str | None:
    names = (kind.__name__ for kind in type(pipeline).__mro__)
    return next((FAMILIES[name].name for name in names if name in FAMILIES), None)


def _edges(tensor: Tensor) -> bytes:
    flat = tensor.detach().flatten()
    edges = torch.cat([flat[:_EDGE_VALUES], flat[-_EDGE_VALUES:]])
    return edges.cpu().contiguous().view(torch.uint8).numpy().tobytes()

"""The live model: one pipeline, the adapter version it holds, and images made with it.

One thread owns a LiveModel; nothing here is safe to call from two. The sampling loop is the stock pipeline's without
what the studio does not use, and gives the same bits from the same noise and embeddings.

Shapes:  B images of a batch;  C H W latent channels, height, width.  With guidance the denoiser sees 2B:
[unconditional..., conditional...].
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from dmpo_app.diffusion import lora
from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.diffusion.stable_diffusion import encode_prompts, load_pipeline
from dmpo_app.domain import BASE_VERSION, Provenance
from dmpo_app.errors import AdapterMismatch, SetupProblem, StudioError
from dmpo_app.settings import RenderSettings

MAX_STRENGTH = 1.5
_CACHED_PROMPTS = 256


class RenderInterrupted(Exception):
    """`should_stop` said yes between two denoising steps; nothing came of the images."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One image to make. `version` is 0 or the one the model holds; `strength` in 0..1.5 means nothing at version 0."""

    prompt: str
    seed: int
    version: int
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One image made. `latents` (C, H, W) on the CPU, scaled latent space, the model's dtype. `flagged`: the model's
    own safety checker blacked it out."""

    image: Image.Image
    latents: Tensor
    provenance: Provenance
    flagged: bool


class LiveModel:
    """Owns the pipeline. `version` is the adapter version whose weights are in it; 0 means that none is."""

    def __init__(self, pipeline: StableDiffusionPipeline, settings: RenderSettings, spec: LoraSpec) -> None:
        self._pipeline = pipeline
        self._settings = settings
        # Read once: diffusers walks all modules for each of these.
        self.device: torch.device = pipeline.unet.device
        self.dtype: torch.dtype = pipeline.unet.dtype
        self._scheduler = _scheduler(settings.sampler, pipeline)
        self._latent_shape = _latent_shape(pipeline, settings.resolution)
        self._prompts: OrderedDict[str, Tensor] = OrderedDict()
        self._parameters: dict[str, nn.Parameter] = {}
        self._spec = spec
        self.version = BASE_VERSION
        self._attach(spec)

    @classmethod
    def load(cls, source: str, settings: RenderSettings, spec: LoraSpec) -> LiveModel:
        """Load a base model from a folder or hub id and make room for adapters of `spec`.

        Raises ModelUnavailable, UnknownFamily or SetupProblem; the message says what to do.
        """
        pipeline = load_pipeline(source, device=settings.device, dtype=settings.dtype)
        torch.backends.cudnn.deterministic = True  # the same request gives the same bytes
        torch.backends.cudnn.benchmark = False
        return cls(pipeline, settings, spec)

    def swap(self, version: int, adapter: AdapterWeights | None) -> None:
        """Hold another version from the next image on; `None` goes with version 0, the base model.

        Everything is checked before the first byte moves: after AdapterMismatch the model is as it was. Should the copy
        itself fail (a lost GPU), the model holds no version, which is version 0, and never a mixture.
        """
        if (version == BASE_VERSION) != (adapter is None):
            raise ValueError(f"version {version} cannot be held with adapter={adapter and adapter.spec}")
        if adapter is None:
            self.version = BASE_VERSION  # strength 0 makes the tensors that stay behind ineffective
            return
        unet, spec = self._pipeline.unet, adapter.spec
        same_layers = (spec.rank, spec.target_modules) == (self._spec.rank, self._spec.target_modules)
        fits_in_place = same_layers and bool(self._parameters)
        if fits_in_place:
            lora.check_fit(adapter.tensors, {key: value.shape for key, value in self._parameters.items()})
        else:
            lora.check_fit(adapter.tensors, lora.expected_shapes(unet, spec))
        self._check_range(version, adapter)
        self.version = BASE_VERSION
        if not fits_in_place:
            self._attach(spec)
        self._spec = spec  # lora_alpha may differ even where the tensors have the same shapes
        lora.load_state_in_place(self._parameters, adapter.tensors)
        self.version = version

    def prompt_embeds(self, prompt: str) -> Tensor:
        """(S, D) on the model's device; computed once for each of the last 256 prompts."""
        found = self._prompts.get(prompt)
        if found is None:
            found = self._prompts[prompt] = encode_prompts(self._pipeline, [prompt])[0]
            if len(self._prompts) > _CACHED_PROMPTS:
                self._prompts.popitem(last=False)
        self._prompts.move_to_end(prompt)
        return found

    def render(
        self,
        shots: Sequence[Shot],
        *,
        num_steps: int | None = None,
        guidance: float | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Sample]:
        """Make all shots in one batch, in order; defaults are the settings'.

        An image depends on its own prompt, seed, version and strength, and in its last bits on the number of images in
        the batch. Raises RenderInterrupted when `should_stop` says so, StudioError when the model produced values that
        are not finite.
        """
        steps = self._settings.num_steps if num_steps is None else num_steps
        scale = self._settings.guidance if guidance is None else guidance
        strengths = [self._strength(shot) for shot in shots]
        latents = self._denoise(shots, strengths, steps, scale, should_stop)
        images, flags = self._decode(latents)
        return [
            Sample(image, latent, self._provenance(shot, steps, scale, len(shots)), flagged)
            for image, latent, shot, flagged in zip(images, latents.cpu(), shots, flags, strict=True)
        ]

    def _attach(self, spec: LoraSpec) -> None:
        self._parameters = {}
        unet = self._pipeline.unet
        parameters = lora.attach(unet, spec, seed=0, dtype=None)  # the model's dtype, as plain diffusers loads it
        unet.requires_grad_(False)
        unet.eval()
        self._spec, self._parameters = spec, parameters

    def _check_range(self, version: int, adapter: AdapterWeights) -> None:
        """float16 ends at 65504: a weight beyond it would become infinite in the copy."""
        if self.dtype is not torch.float16:
            return
        for key, tensor in adapter.tensors.items():
            if float(tensor.abs().max()) > torch.finfo(self.dtype).max:
                raise AdapterMismatch(
                    f"adapter {version} does not fit the live model: {key} exceeds the range of float16; "
                    "set DMPO_RENDER__DTYPE=bfloat16 or float32"
                )

    def _strength(self, shot: Shot) -> float:
        if shot.version not in (BASE_VERSION, self.version):
            raise ValueError(f"version {shot.version} was asked of a model that holds {self.version}")
        if not 0 <= shot.strength <= MAX_STRENGTH:
            raise ValueError(f"a strength of {shot.strength} is not between 0 and {MAX_STRENGTH}")
        return 0.0 if shot.version == BASE_VERSION else shot.strength

    @torch.inference_mode()
    def _denoise(
        self,
        shots: Sequence[Shot],
        strengths: list[float],
        num_steps: int,
        guidance: float,
        should_stop: Callable[[], bool],
    ) -> Tensor:
        """The final latents, (B, C, H, W)."""
        unet, scheduler = self._pipeline.unet, self._scheduler
        guided = guidance > 1
        embeds = torch.stack([self.prompt_embeds(shot.prompt) for shot in shots])
        if guided:
            embeds = torch.cat([self.prompt_embeds("").expand_as(embeds), embeds])
        scheduler.set_timesteps(num_steps, device=self.device)
        latents = self._noise([shot.seed for shot in shots]) * scheduler.init_noise_sigma
        with lora.gate(unet, self._spec, strengths * (2 if guided else 1)):
            for timestep in scheduler.timesteps:
                if should_stop():
                    raise RenderInterrupted
                inputs = torch.cat([latents] * 2) if guided else latents
                inputs = scheduler.scale_model_input(inputs, timestep)
                prediction = unet(inputs, timestep, encoder_hidden_states=embeds, return_dict=False)[0]
                if guided:
                    unconditional, conditional = prediction.chunk(2)
                    prediction = unconditional + guidance * (conditional - unconditional)
                latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
        if not bool(torch.isfinite(latents).all()):
            raise StudioError(
                f"the model produced values that are not finite (version {self.version}, {self.dtype}); try a lower "
                "strength or guidance, or DMPO_RENDER__DTYPE=float32"
            )
        return cast(Tensor, latents)

    def _noise(self, seeds: Sequence[int]) -> Tensor:
        """One generator an image, on the CPU: an image depends on its own seed, not on its neighbours or the device."""
        noise = [
            torch.randn((1, *self._latent_shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
            for seed in seeds
        ]
        return torch.cat(noise).to(self.device, self.dtype)

    @torch.inference_mode()
    def _decode(self, latents: Tensor) -> tuple[list[Image.Image], list[bool]]:
        pipeline = self._pipeline
        pixels = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor, return_dict=False)[0]
        pixels, flags = pipeline.run_safety_checker(pixels, self.device, self.dtype)
        flagged = [False] * len(latents) if flags is None else [bool(flag) for flag in flags]
        images = pipeline.image_processor.postprocess(
            pixels, output_type="pil", do_denormalize=[not flag for flag in flagged]
        )
        return images, flagged

    def _provenance(self, shot: Shot, num_steps: int, guidance: float, batch_size: int) -> Provenance:
        return Provenance(
            prompt=shot.prompt,
            seed=shot.seed,
            sampler=self._settings.sampler,
            num_steps=num_steps,
            guidance=guidance,
            adapter_version=shot.version,
            strength=0.0 if shot.version == BASE_VERSION else shot.strength,
            batch_size=batch_size,
            num_threads=torch.get_num_threads(),
            device=str(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
        )


def _scheduler(sampler: str, pipeline: StableDiffusionPipeline) -> Any:
    """A scheduler of its own with the model's noise schedule: the pipeline's may be of another kind."""
    kind = {"ddim": DDIMScheduler, "dpm++": DPMSolverMultistepScheduler}[sampler]
    return kind.from_config(pipeline.scheduler.config)


def _latent_shape(pipeline: StableDiffusionPipeline, resolution: int | None) -> tuple[int, int, int]:
    """(C, H, W) for a square image of `resolution` pixels, or of the model's own size."""
    channels, size, factor = (
        pipeline.unet.config.in_channels,
        pipeline.unet.config.sample_size,
        pipeline.vae_scale_factor,
    )
    if resolution is None:
        height, width = (size, size) if isinstance(size, int) else size
        return channels, height, width
    if resolution % factor:
        raise SetupProblem(f"a resolution of {resolution} is not a multiple of this model's {factor} pixels per latent")
    return channels, resolution // factor, resolution // factor

"""The live model: one pipeline, the adapter version it holds, and images made with it.

One thread owns a LiveModel; nothing here is safe to call from two. Its images are those of the stock pipelines up to
rounding, from the same noise and embeddings; the same request gives the same bits again.

Shapes:  B images of a batch;  C H W latent channels, height, width.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin
from PIL import Image
from torch import Tensor, nn

from dmpo_app.diffusion import lora
from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.diffusion.base_models import detect_family, resolve_sampling
from dmpo_app.diffusion.families.protocol import Conditioning, ModelFamily
from dmpo_app.diffusion.families.registry import get_family
from dmpo_app.diffusion.foreign_lora import read_foreign_lora
from dmpo_app.diffusion.loading import Encoder, latent_shape_at, load_pipeline
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.diffusion.placement import precision_name
from dmpo_app.domain.limits import MAX_STRENGTH
from dmpo_app.domain.lineage import BASE_VERSION, Provenance, Sampling
from dmpo_app.errors import AdapterMismatchError, SetupError, StudioError
from dmpo_app.settings import RenderSettings


def sample(
    module: ModelMixin,
    family: ModelFamily,
    scheduler: SchedulerMixin,
    noise: Tensor,
    conditioning: Conditioning,
    *,
    num_steps: int,
    guidance: float | None,
    guided: bool = False,
    before_step: Callable[[], None] = lambda: None,
) -> Tensor:
    """Sample final latents, (B, C, H, W), from `noise` of that shape; both in the module's dtype on its device.

    `guided`: classifier-free guidance at scale `guidance`, with `conditioning` of (2B, ...); else of (B, ...), and
    `guidance` only goes to denoisers that take it as an input. `before_step` may raise to end things between two steps.
    Draws no random numbers: the samplers in use are deterministic.
    """
    family.process.set_timesteps(scheduler, num_steps, (noise.shape[-2], noise.shape[-1]), noise.device)
    latents = noise
    for timestep in scheduler.timesteps:
        before_step()
        inputs = torch.cat([latents] * 2) if guided else latents
        prediction = family.forward(module, inputs, timestep, conditioning, guidance=guidance)
        if guided and guidance is not None:
            unconditional, conditional = prediction.chunk(2)
            prediction = unconditional + guidance * (conditional - unconditional)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
    return latents


_CACHED_PROMPTS = 256


class RenderInterrupted(Exception):
    """A rendering that `should_stop` ended between two denoising steps; it made no images."""


@dataclass(frozen=True, slots=True)
class Shot:
    """Request for one image.

    `version` is 0 or the one the model holds; `strength` in 0..1.5 means nothing at version 0.
    """

    prompt: str
    seed: int
    version: int
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A rendered image with its latents.

    `latents` (C, H, W) are on the CPU, in scaled latent space and the model's dtype. `flagged`: the model's own safety
    checker blacked the image out.
    """

    image: Image.Image
    latents: Tensor
    provenance: Provenance
    flagged: bool


class LiveModel:
    """The pipeline and the adapter in it. `version` is the adapter version whose weights are loaded; 0: none."""

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        family: ModelFamily,
        settings: RenderSettings,
        default_sampling: Sampling,
        spec: LoraSpec,
    ) -> None:
        self._pipeline = pipeline
        self._family = family
        self._default_sampling = default_sampling
        # Read once: diffusers walks all modules for each of these.
        self._denoiser: ModelMixin = getattr(pipeline, family.component)
        self.device: torch.device = self._denoiser.device
        self.dtype: torch.dtype = self._denoiser.dtype
        self._precision = precision_name(self.dtype, settings.quantize)
        self._sampler = _resolve_sampler(settings.sampler, family)
        self._scheduler = family.process.sampling_scheduler(self._sampler, pipeline.scheduler.config)
        self._latent_shape = latent_shape_at(pipeline, family, settings.resolution)
        with torch.inference_mode():
            self._unconditional = family.unconditional(pipeline)
        self._prompts: OrderedDict[str, Conditioning] = OrderedDict()
        self._parameters: dict[str, nn.Parameter] = {}
        self._spec = spec
        self.version = BASE_VERSION
        self._attach(spec)

    @classmethod
    def load(cls, source: str, settings: RenderSettings, spec: LoraSpec) -> Self:
        """Load a base model from a folder or hub id and make room for adapters of `spec`.

        Raises ModelUnavailableError, UnknownFamilyError or SetupError; the message says what to do.
        """
        family, default_sampling = get_family(detect_family(source)), resolve_sampling(source, settings)
        pipeline = load_pipeline(
            source,
            device=settings.device,
            dtype=settings.dtype,
            quantize=settings.quantize,
            safety_checker=settings.safety_checker,
        )
        torch.backends.cudnn.deterministic = True  # the same request gives the same bytes
        torch.backends.cudnn.benchmark = False
        return cls(pipeline, family, settings, default_sampling, spec)

    def encoder(self) -> Encoder:
        """The model's autoencoder and text encoders, for images of the size it renders."""
        scale = self._pipeline.vae_scale_factor
        return Encoder(self._pipeline, self._family, (self._latent_shape[1] * scale, self._latent_shape[2] * scale))

    def swap(self, version: int, adapter: AdapterWeights | None) -> None:
        """Load another adapter version for the next images; `None` goes with version 0, the base model.

        Everything is checked before the first byte moves: after AdapterMismatchError the model is as it was. Should the
        copy itself fail (a lost GPU), the model holds no version, which is version 0, and never a mixture.
        """
        if (version == BASE_VERSION) != (adapter is None):
            raise ValueError(f"version {version} cannot be held with adapter={adapter and adapter.spec}")
        if adapter is None:
            self.version = BASE_VERSION  # strength 0 makes the tensors that stay behind ineffective
            return
        spec = adapter.spec
        if spec.component != self._family.component:
            raise AdapterMismatchError(
                f"adapter {version} does not fit the live model: it is one of a {spec.component}, the model has a "
                f"{self._family.component}; was it trained on a model of another family?"
            )
        same_layers = (spec.rank, spec.target_modules) == (self._spec.rank, self._spec.target_modules)
        fits_in_place = same_layers and bool(self._parameters)
        if fits_in_place:
            lora.check_fit(adapter.tensors, {key: value.shape for key, value in self._parameters.items()})
        else:
            lora.check_fit(adapter.tensors, lora.expected_shapes(self._denoiser, spec))
        self._check_range(version, adapter)
        self.version = BASE_VERSION
        if not fits_in_place:
            self._attach(spec)
        self._spec = spec  # lora_alpha may differ even where the tensors have the same shapes
        lora.load_state_in_place(self._parameters, adapter.tensors)
        self.version = version

    def read_foreign_lora(self, path: Path) -> AdapterWeights:
        """Read a LoRA file of somebody else's as an adapter for `swap`; the model then holds the base model.

        Raises AdapterCorruptError or AdapterMismatchError.
        """
        self.version = BASE_VERSION
        lora.detach(self._denoiser)
        try:
            return read_foreign_lora(self._pipeline, self._family, path)
        finally:
            self._attach(self._spec)

    @torch.inference_mode()
    def conditioning(self, prompt: str) -> Conditioning:
        """The encoded prompt on the model's device, no batch dimension; computed once for each of the last 256."""
        conditioning = self._prompts.get(prompt)
        if conditioning is None:
            conditioning = self._prompts[prompt] = self._family.encode_prompt(self._pipeline, prompt)
            if len(self._prompts) > _CACHED_PROMPTS:
                self._prompts.popitem(last=False)
        self._prompts.move_to_end(prompt)
        return conditioning

    def render(
        self,
        shots: Sequence[Shot],
        *,
        num_steps: int | None = None,
        guidance: float | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Sample]:
        """Make all shots in one batch, in order; defaults are the settings' or, where those are open, the model's.

        An image depends on its own prompt, seed, version and strength, and in its last bits on the number of images in
        the batch. Raises RenderInterrupted when `should_stop` says so, StudioError when the model produced values that
        are not finite.
        """
        steps = self._default_sampling.num_steps if num_steps is None else num_steps
        scale = self._default_sampling.guidance if guidance is None else guidance
        strengths = [self._strength(shot) for shot in shots]
        latents = self._denoise(shots, strengths, steps, scale, should_stop)
        images, flags = self._decode(latents)
        return [
            Sample(image, latent, self._provenance(shot, steps, scale, len(shots)), flagged)
            for image, latent, shot, flagged in zip(images, latents.cpu(), shots, flags, strict=True)
        ]

    def expected_provenance(self, shot: Shot, batch_size: int) -> Provenance:
        """The provenance of a shot rendered in a batch of this size with the default sampling."""
        return self._provenance(shot, self._default_sampling.num_steps, self._default_sampling.guidance, batch_size)

    def _attach(self, spec: LoraSpec) -> None:
        self._parameters = {}
        denoiser = self._denoiser
        parameters = lora.attach(denoiser, spec, seed=0, dtype=None)  # the model's dtype, as plain diffusers loads it
        denoiser.requires_grad_(False)
        denoiser.eval()
        self._spec, self._parameters = spec, parameters

    def _check_range(self, version: int, adapter: AdapterWeights) -> None:
        """Raise AdapterMismatchError for weights beyond float16's 65504, which would become infinite in the copy."""
        if self.dtype is not torch.float16:
            return
        for key, tensor in adapter.tensors.items():
            if float(tensor.abs().max()) > torch.finfo(self.dtype).max:
                raise AdapterMismatchError(
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
        guided = guidance > 1 and self._unconditional is not None

        def check() -> None:
            if should_stop():
                raise RenderInterrupted

        with lora.gate(self._denoiser, self._spec, strengths * (2 if guided else 1)):
            latents = sample(
                self._denoiser,
                self._family,
                self._scheduler,
                self._noise([shot.seed for shot in shots]),
                self._batch(shots, guided=guided),
                num_steps=num_steps,
                guidance=guidance,
                guided=guided,
                before_step=check,
            )
        if not bool(torch.isfinite(latents).all()):
            raise StudioError(
                f"the model produced values that are not finite (version {self.version}, {self.dtype}); try a lower "
                "strength or guidance, or DMPO_RENDER__DTYPE=float32"
            )
        return latents

    def _batch(self, shots: Sequence[Shot], *, guided: bool) -> Conditioning:
        """The batched conditioning of all shots, (B, ...); guided (2B, ...), the unconditional half first."""
        encoded = [self.conditioning(shot.prompt) for shot in shots]
        batch = {name: torch.stack([one[name] for one in encoded]) for name in encoded[0]}
        if not guided or self._unconditional is None:
            return batch
        return {name: torch.cat([self._unconditional[name].expand_as(own), own]) for name, own in batch.items()}

    def _noise(self, seeds: Sequence[int]) -> Tensor:
        """Initial noise from one CPU generator per image, so that an image depends on its own seed alone.

        Neither its neighbours in the batch nor the device matter.
        """
        noise = [
            torch.randn((1, *self._latent_shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
            for seed in seeds
        ]
        return torch.cat(noise).to(self.device, self.dtype)

    @torch.inference_mode()
    def _decode(self, latents: Tensor) -> tuple[list[Image.Image], list[bool]]:
        pixels, flagged = self._family.decode(self._pipeline, latents)
        images = self._pipeline.image_processor.postprocess(
            pixels, output_type="pil", do_denormalize=[not flag for flag in flagged]
        )
        return images, flagged

    def _provenance(self, shot: Shot, num_steps: int, guidance: float, batch_size: int) -> Provenance:
        return Provenance(
            prompt=shot.prompt,
            seed=shot.seed,
            sampler=self._sampler,
            num_steps=num_steps,
            guidance=guidance,
            adapter_version=shot.version,
            strength=0.0 if shot.version == BASE_VERSION else shot.strength,
            batch_size=batch_size,
            num_threads=torch.get_num_threads(),
            device=str(self.device),
            dtype=self._precision,
        )


def _resolve_sampler(setting: str, family: ModelFamily) -> str:
    """The name of the sampler for a setting; the pipeline's own scheduler may be of another kind."""
    samplers = family.process.samplers
    if setting != "auto" and setting not in samplers:
        raise SetupError(
            f"the sampler {setting!r} does not go with a {family.name} model; set DMPO_RENDER__SAMPLER to auto or one "
            f"of {', '.join(samplers)}"
        )
    return samplers[0] if setting == "auto" else setting

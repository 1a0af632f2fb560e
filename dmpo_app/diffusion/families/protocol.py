"""The protocols of a model family and of its diffusion process; all other code is independent of the family.

That code sees latents as (B, C, H, W) in the *scaled* (and, where the autoencoder has one, shifted) space that the
denoiser works in, and prompts as a Conditioning. What a family packs, embeds or adds beside that is its own affair.

Shapes:  B images;  C H W latent channels, height, width;  S tokens of a prompt;  D P widths of its embeddings.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin
from torch import Tensor

Conditioning = Mapping[str, Tensor]
"""A prompt as the denoiser takes it: `prompt_embeds` (S, D) and, for most, `pooled_prompt_embeds` (P,).

Without a batch dimension where it belongs to one prompt, with one where it goes into the denoiser.
"""


class DiffusionProcess(Protocol):
    """The noise process: adding noise in training, sampling without it. Two: `NoiseSchedule` and `FlowMatching`.

    `timesteps` are whole numbers in 0..num_train_timesteps - 1, (B,), more noise the higher.
    """

    @property
    def samplers(self) -> tuple[str, ...]:
        """Names of the samplers, as in the settings; the first is the usual one."""
        ...

    def load_scheduler(self, folder: Path) -> SchedulerMixin:
        """The training schedule of a model's folder. Raises ModelUnavailableError for one that is not understood."""
        ...

    def training_scheduler(self, config: Mapping[str, Any], source: str) -> SchedulerMixin:
        """The training schedule of a scheduler's configuration; raises like `load_scheduler`, naming `source`."""
        ...

    def prediction_type(self, scheduler: SchedulerMixin) -> str:
        """The prediction type of the denoiser: epsilon, v_prediction or flow."""
        ...

    def add_noise(self, scheduler: SchedulerMixin, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents, float32 (B, C, H, W)."""
        ...

    def training_target(self, scheduler: SchedulerMixin, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The training target of the denoiser's prediction, float32 (B, C, H, W)."""
        ...

    def noise_error_weight(self, scheduler: SchedulerMixin, timesteps: Tensor, size: tuple[int, int]) -> Tensor:
        """Weight (B,), float32, that turns a squared error of the prediction into one of the implied noise."""
        ...

    def model_time(self, scheduler: SchedulerMixin, timesteps: Tensor, size: tuple[int, int]) -> Tensor:
        """The time input (B,) of the denoiser for `timesteps` on latents of `size` (H, W)."""
        ...

    def sampling_scheduler(self, sampler: str, config: Mapping[str, Any]) -> SchedulerMixin:
        """A new sampler of that name with the model's noise schedule."""
        ...

    def set_timesteps(
        self, scheduler: SchedulerMixin, num_steps: int, size: tuple[int, int], device: torch.device
    ) -> None:
        """Set a sampler's timesteps for latents of `size` (H, W)."""
        ...


class ModelFamily(Protocol):
    """One family; stateless, so one instance serves everybody."""

    @property
    def name(self) -> str:
        """The module's name, which the registry has too."""
        ...

    @property
    def component(self) -> str:
        """The denoiser's folder in the model, and the prefix of its LoRA keys in plain diffusers."""
        ...

    @property
    def pipeline_class(self) -> type[DiffusionPipeline]: ...

    @property
    def denoiser_class(self) -> type[ModelMixin]: ...

    @property
    def process(self) -> DiffusionProcess: ...

    @property
    def targets(self) -> Mapping[str, tuple[str, ...]]:
        """Ends of module names by preset: `attention` and `wide`."""
        ...

    @property
    def default_targets(self) -> str:
        """The default preset, which `auto` stands for."""
        ...

    @property
    def latent_multiple(self) -> int:
        """The number that height and width of latents must be multiples of."""
        ...

    def latent_shape(self, pipeline: DiffusionPipeline) -> tuple[int, int, int]:
        """The latent shape (C, H, W) of the images that the model was made for."""
        ...

    def encode_prompt(self, pipeline: DiffusionPipeline, prompt: str) -> Conditioning:
        """Encode a prompt as the stock pipeline does, without batch dimension, on the pipeline's device."""
        ...

    def unconditional(self, pipeline: DiffusionPipeline) -> Conditioning | None:
        """The unconditional side of classifier-free guidance.

        None where guidance is an input of the denoiser or unknown.
        """
        ...

    def forward(
        self, module: ModelMixin, latents: Tensor, time: Tensor, conditioning: Conditioning, *, guidance: float | None
    ) -> Tensor:
        """The denoiser's prediction, (B, C, H, W).

        latents (B, C, H, W) and conditioning in the module's dtype on its device; time () or (B,), in the units of
        `DiffusionProcess.model_time`. `guidance` goes to denoisers that take it as an input; None is what they are
        trained with.
        """
        ...

    def decode(self, pipeline: DiffusionPipeline, latents: Tensor) -> tuple[Tensor, list[bool]]:
        """Decode latents to pixels (B, 3, height, width) in -1..1; flag images that the safety checker blacked out."""
        ...

    def encode(self, pipeline: DiffusionPipeline, pixels: Tensor) -> Tensor:
        """Encode pixels (B, 3, height, width) in -1..1 as latents (B, C, H, W), in the dtype of the autoencoder.

        What `decode` undoes, as far as the autoencoder can: see `components.posterior_mode`. Needs no denoiser.
        """
        ...

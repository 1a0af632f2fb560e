"""What a model family has to answer, so that everything else in the project can do without knowing which one it is.

Everybody else sees latents as (B, C, H, W) in the *scaled* (and, where the autoencoder has one, shifted) space that the
denoiser works in, and prompts as a Conditioning. What a family packs, embeds or adds beside that is its own affair.

Shapes:  B images;  C H W latent channels, height, width;  S tokens of a prompt;  D P widths of its embeddings.
"""

from __future__ import annotations

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
    """How noise gets onto latents and off them again. `noise_schedule` and `flow_matching` are the two there are.

    `timesteps` are whole numbers in 0..num_train_timesteps - 1, (B,), more noise the higher.
    """

    @property
    def samplers(self) -> tuple[str, ...]:
        """Names of the samplers, as in the settings; the first is the usual one."""
        ...

    def load_scheduler(self, folder: Path) -> SchedulerMixin:
        """The training schedule of a model's folder. Raises ModelUnavailable for one that is not understood."""
        ...

    def prediction_type(self, scheduler: SchedulerMixin) -> str:
        """What the denoiser predicts: epsilon, v_prediction or flow."""
        ...

    def add_noise(self, scheduler: SchedulerMixin, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents, float32 (B, C, H, W)."""
        ...

    def training_target(self, scheduler: SchedulerMixin, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser should predict of them, float32 (B, C, H, W)."""
        ...

    def noise_error_weight(self, scheduler: SchedulerMixin, timesteps: Tensor, size: tuple[int, int]) -> Tensor:
        """Times this, (B,) float32, a squared error of the prediction is one of the noise that it implies."""
        ...

    def model_time(self, scheduler: SchedulerMixin, timesteps: Tensor, size: tuple[int, int]) -> Tensor:
        """The time (B,) that the denoiser is told for `timesteps` on latents of `size` (H, W)."""
        ...

    def sampling_scheduler(self, sampler: str, config: Mapping[str, Any]) -> SchedulerMixin:
        """A new sampler of that name with the model's noise schedule."""
        ...

    def start(self, scheduler: SchedulerMixin, num_steps: int, size: tuple[int, int], device: torch.device) -> None:
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
    def usual_targets(self) -> str:
        """The preset that `auto` stands for."""
        ...

    @property
    def latent_multiple(self) -> int:
        """Height and width of latents must be multiples of this."""
        ...

    def latent_shape(self, pipeline: DiffusionPipeline) -> tuple[int, int, int]:
        """(C, H, W) of the images that the model was made for."""
        ...

    def encode_prompt(self, pipeline: DiffusionPipeline, prompt: str) -> Conditioning:
        """As the stock pipeline encodes it, without batch dimension, on the pipeline's device."""
        ...

    def unconditional(self, pipeline: DiffusionPipeline) -> Conditioning | None:
        """The other side of classifier-free guidance; None where guidance is an input of the denoiser or unknown."""
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
        """Pixels (B, 3, height, width) in -1..1, and which images the model's own safety checker blacked out."""
        ...

    def encode(self, pipeline: DiffusionPipeline, pixels: Tensor) -> Tensor:
        """Latents (B, C, H, W) of pixels (B, 3, height, width) in -1..1, in the dtype of the autoencoder.

        What `decode` undoes, as far as the autoencoder can: see `autoencoder.posterior_mode`. Needs no denoiser.
        """
        ...

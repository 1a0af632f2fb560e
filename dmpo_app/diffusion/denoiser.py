"""The denoiser and the noise schedule of a base model: all that training needs of it.

Neither autoencoder nor text encoder is loaded.

Shapes:  B images;  C H W latent channels, height, width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import torch
from diffusers import ModelMixin, SchedulerMixin
from torch import Tensor

from dmpo_app.diffusion.families.protocol import Conditioning, ModelFamily
from dmpo_app.diffusion.placement import Quantize, precision_name


@dataclass(frozen=True, slots=True)
class Denoiser:
    """A denoiser, the schedule it is trained with, and the family that knows how to use both.

    Latents, noise and predictions are (B, C, H, W) in the denoiser's latent space; `timesteps` (B,) are whole numbers
    in 0..num_timesteps - 1, more noise the higher; tensors are on the denoiser's device, in any dtype. `empty_prompt`
    gives the encoded empty prompt, without batch dimension, to those who drop captions; it may have to be encoded.
    """

    module: ModelMixin
    noise_scheduler: SchedulerMixin
    family: ModelFamily
    quantize: Quantize = "none"
    empty_prompt: Callable[[], Conditioning] | None = None
    dtype: torch.dtype = field(init=False)
    """The dtype that the denoiser computes in; the weights of a quantised one are smaller."""

    def __post_init__(self) -> None:
        # diffusers walks all parameters for this: asked thrice a pass, it was an eighth of a step of a tiny model.
        object.__setattr__(self, "dtype", self.module.dtype)

    @property
    def device(self) -> torch.device:
        return cast(torch.device, self.module.device)

    @property
    def precision(self) -> str:
        """The name of `dtype` and, where the weights are quantised, of their format: `float32`, `bfloat16+nf4`."""
        return precision_name(self.dtype, self.quantize)

    @property
    def num_timesteps(self) -> int:
        return cast(int, self.noise_scheduler.config.num_train_timesteps)

    @property
    def prediction_type(self) -> str:
        """The prediction type: epsilon, v_prediction or flow."""
        return self.family.process.prediction_type(self.noise_scheduler)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents, float32 (B, C, H, W)."""
        return self.family.process.add_noise(self.noise_scheduler, latents, noise, timesteps)

    def training_target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The training target of the denoiser's prediction, float32 (B, C, H, W)."""
        return self.family.process.training_target(self.noise_scheduler, latents, noise, timesteps)

    def noise_error_weight(self, timesteps: Tensor, size: tuple[int, int]) -> Tensor:
        """Weight (B,), float32 in 0..1, that turns a squared error of the prediction into one of the implied noise.

        `size` is (H, W) of the latents: some schedules depend on it.
        """
        return self.family.process.noise_error_weight(self.noise_scheduler, timesteps, size)

    def predict(self, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The prediction in float32, (B, C, H, W); gradients flow. Conditioning with a batch dimension of B."""
        size = (noisy_latents.shape[-2], noisy_latents.shape[-1])
        prediction = self.family.forward(
            self.module,
            noisy_latents.to(self.dtype),
            self.family.process.model_time(self.noise_scheduler, timesteps, size),
            {name: tensor.to(self.dtype) for name, tensor in conditioning.items()},
            guidance=None,
        )
        return prediction.float()

"""Diffusion processes: a schedule of betas, and flow matching.

A schedule of betas: x_t = sqrt(alphabar_t) x_0 + sqrt(1 - alphabar_t) noise. Predicted is the noise (epsilon) or the
velocity (v_prediction; Salimans and Ho 2022, arXiv 2202.00512). With `rescale_betas_zero_snr` alphabar_T is 0: the last
timestep is pure noise (Lin et al. 2023, arXiv 2305.08891).

Flow matching: x = sigma noise + (1 - sigma) x_0, and the denoiser predicts dx/dsigma = noise - x_0. Rectified flow as
in Esser et al. 2024 (arXiv 2403.03206). The schedule of sigmas is the model's own: shifted towards noise by a constant
(SD3) or by more the larger the image is (Flux). Timestep t of N stands for the sigma that the schedule has at
(t + 1) / N before shifting, so that evenly spread timesteps visit the noise levels of sampling.

Shapes:  B images;  C H W latent channels, height, width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
)
from torch import Tensor

from dmpo_app.errors import ModelUnavailableError

_SAMPLERS = {"ddim": DDIMScheduler, "dpm++": DPMSolverMultistepScheduler}


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """The DiffusionProcess of Stable Diffusion 1, 2 and XL."""

    @property
    def samplers(self) -> tuple[str, ...]:
        return tuple(_SAMPLERS)

    def load_scheduler(self, folder: Path) -> DDPMScheduler:
        config = DDPMScheduler.load_config(folder, subfolder="scheduler", local_files_only=True)
        return self.training_scheduler(config, str(folder))

    def training_scheduler(self, config: Mapping[str, Any], source: str) -> DDPMScheduler:
        if "sigma_data" in config or "FlowMatch" in str(config.get("_class_name")):
            raise ModelUnavailableError(
                f"the noise schedule of {source} is a {config.get('_class_name')}, which this model family is not "
                "trained with here; models with a schedule of betas (DDPM, DDIM, Euler, DPM-Solver, ...) are"
            )
        scheduler = DDPMScheduler.from_config(config)
        self.prediction_type(scheduler)
        return scheduler

    def prediction_type(self, scheduler: SchedulerMixin) -> str:
        """The prediction type. Raises ModelUnavailableError unless its training target is known."""
        prediction_type = scheduler.config.prediction_type
        if prediction_type not in {"epsilon", "v_prediction"}:
            raise ModelUnavailableError(f"models with prediction type {prediction_type!r} cannot be trained here")
        return cast(str, prediction_type)

    def add_noise(self, scheduler: SchedulerMixin, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return cast(Tensor, scheduler.add_noise(latents.float(), noise.float(), timesteps))

    def training_target(self, scheduler: SchedulerMixin, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noise, or the velocity sqrt(alphabar_t) noise - sqrt(1 - alphabar_t) x_0."""
        if self.prediction_type(scheduler) == "epsilon":
            return noise.float()
        return cast(Tensor, scheduler.get_velocity(latents.float(), noise.float(), timesteps))

    def noise_error_weight(
        self,
        scheduler: SchedulerMixin,
        timesteps: Tensor,
        size: tuple[int, int],  # noqa: ARG002 - the protocol's
    ) -> Tensor:
        """The weight: 1 for epsilon, and alphabar_t for velocity.

        That is because noise = sqrt(alphabar_t) v + sqrt(1 - alphabar_t) x_t.
        """
        if self.prediction_type(scheduler) == "epsilon":
            return torch.ones(timesteps.shape, device=timesteps.device)
        return cast(Tensor, scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float())

    def model_time(
        self,
        scheduler: SchedulerMixin,  # noqa: ARG002 - the protocol's
        timesteps: Tensor,
        size: tuple[int, int],  # noqa: ARG002
    ) -> Tensor:
        return timesteps

    def sampling_scheduler(self, sampler: str, config: Mapping[str, Any]) -> SchedulerMixin:
        # Schedules saved from other samplers lack the field, and DDIM's own default would clip latents to -1..1.
        unclipped = {"clip_sample": False} if sampler == "ddim" and "clip_sample" not in config else {}
        return _SAMPLERS[sampler].from_config(config, **unclipped)

    def set_timesteps(
        self,
        scheduler: SchedulerMixin,
        num_steps: int,
        size: tuple[int, int],  # noqa: ARG002 - the protocol's
        device: torch.device,
    ) -> None:
        scheduler.set_timesteps(num_steps, device=device)


@dataclass(frozen=True, slots=True)
class FlowMatching:
    """The DiffusionProcess of SD3 and Flux.

    `patch_size`: latents per side of a token, for shifts that depend on the image's size. `even_sigmas`: sampling
    starts from sigmas 1, 1 - 1/n, ..., 1/n (Flux) instead of the scheduler's own spacing.
    """

    patch_size: int = 2
    even_sigmas: bool = False

    @property
    def samplers(self) -> tuple[str, ...]:
        return ("flow-euler",)

    def load_scheduler(self, folder: Path) -> FlowMatchEulerDiscreteScheduler:
        config = FlowMatchEulerDiscreteScheduler.load_config(folder, subfolder="scheduler", local_files_only=True)
        return self.training_scheduler(config, str(folder))

    def training_scheduler(self, config: Mapping[str, Any], source: str) -> FlowMatchEulerDiscreteScheduler:
        if not str(config.get("_class_name")).startswith("FlowMatch"):
            raise ModelUnavailableError(
                f"the noise schedule of {source} is a {config.get('_class_name')}; this model family is trained with "
                "a FlowMatchEulerDiscreteScheduler"
            )
        return FlowMatchEulerDiscreteScheduler.from_config(config)

    def prediction_type(self, scheduler: SchedulerMixin) -> str:  # noqa: ARG002 - the protocol's
        return "flow"

    def sigmas(self, scheduler: SchedulerMixin, timesteps: Tensor, size: tuple[int, int]) -> Tensor:
        """The share of noise at `timesteps`, (B,) float32 in 0..1, on latents of `size` (H, W)."""
        schedule = scheduler.sigmas  # as constructed: N values from 1 down, with a constant shift already in them
        if scheduler.config.use_dynamic_shifting:
            schedule = scheduler.time_shift(self._mu(scheduler, size), 1.0, schedule)
        if scheduler.config.shift_terminal:
            schedule = scheduler.stretch_shift_to_terminal(schedule)
        return cast(Tensor, schedule.flip(0).to(timesteps.device)[timesteps])

    def add_noise(self, scheduler: SchedulerMixin, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        sigma = self.sigmas(scheduler, timesteps, _size(latents)).view(-1, 1, 1, 1)
        return sigma * noise.float() + (1 - sigma) * latents.float()

    def training_target(
        self,
        scheduler: SchedulerMixin,  # noqa: ARG002 - the protocol's
        latents: Tensor,
        noise: Tensor,
        timesteps: Tensor,  # noqa: ARG002
    ) -> Tensor:
        return noise.float() - latents.float()

    def noise_error_weight(self, scheduler: SchedulerMixin, timesteps: Tensor, size: tuple[int, int]) -> Tensor:
        """The weight (1 - sigma)^2, because noise = x + (1 - sigma) v."""
        return (1 - self.sigmas(scheduler, timesteps, size)).square()

    def model_time(self, scheduler: SchedulerMixin, timesteps: Tensor, size: tuple[int, int]) -> Tensor:
        return cast(Tensor, self.sigmas(scheduler, timesteps, size) * scheduler.config.num_train_timesteps)

    def sampling_scheduler(self, sampler: str, config: Mapping[str, Any]) -> SchedulerMixin:
        return {"flow-euler": FlowMatchEulerDiscreteScheduler}[sampler].from_config(config)

    def set_timesteps(
        self, scheduler: SchedulerMixin, num_steps: int, size: tuple[int, int], device: torch.device
    ) -> None:
        shift = {"mu": self._mu(scheduler, size)} if scheduler.config.use_dynamic_shifting else {}
        sigmas = np.linspace(1.0, 1 / num_steps, num_steps) if self.even_sigmas else None
        scheduler.set_timesteps(num_steps, device=device, sigmas=sigmas, **shift)

    def _mu(self, scheduler: SchedulerMixin, size: tuple[int, int]) -> float:
        """The shift of the schedule: linear in the number of tokens, between two sizes the configuration names.

        The rule of Flux's reference code, `get_lin_function` in its sampling.py.
        """
        config = scheduler.config
        num_tokens = (size[0] // self.patch_size) * (size[1] // self.patch_size)
        slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
        return cast(float, num_tokens * slope + (config.base_shift - slope * config.base_image_seq_len))


def _size(latents: Tensor) -> tuple[int, int]:
    return latents.shape[-2], latents.shape[-1]

"""Diffusion with a schedule of betas: x_t = sqrt(alphabar_t) x_0 + sqrt(1 - alphabar_t) noise.

Predicted is the noise (epsilon) or the velocity (v_prediction; Salimans and Ho 2022, arXiv 2202.00512). With
`rescale_betas_zero_snr` alphabar_T is 0: the last timestep is pure noise (Lin et al. 2023, arXiv 2305.08891).

Shapes:  B images;  C H W latent channels, height, width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, SchedulerMixin
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

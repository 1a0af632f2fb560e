"""The sampling loop of all families: the stock pipelines' without what the studio does not use.

Shapes:  B images;  C H W latent channels, height, width.  With guidance the denoiser sees 2B:
[unconditional..., conditional...].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import ModelMixin, SchedulerMixin
from torch import Tensor

from dmpo_app.diffusion.families.protocol import Conditioning, ModelFamily


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
    """The final latents, (B, C, H, W), from `noise` of that shape; both in the module's dtype on its device.

    `guided`: classifier-free guidance at scale `guidance`, with `conditioning` of (2B, ...); else of (B, ...), and
    `guidance` only goes to denoisers that take it as an input. `before_step` may raise to end things between two steps.
    Draws no random numbers: the samplers in use are deterministic.
    """
    family.process.start(scheduler, num_steps, (noise.shape[-2], noise.shape[-1]), noise.device)
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

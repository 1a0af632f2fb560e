"""Stable Diffusion 1.x and 2.x: a UNet, one CLIP text encoder, noise or velocity predicted, a safety checker in some.

Shapes:  B images;  C H W latent channels, height, width;  S tokens of a prompt (77);  D their width.
"""

from typing import cast

from diffusers import DiffusionPipeline, ModelMixin, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from dmpo_app.diffusion.families.components import UNET_TARGETS, posterior_mode, unet_latent_shape, unscale_latents
from dmpo_app.diffusion.families.noise_schedule import NoiseSchedule
from dmpo_app.diffusion.families.protocol import Conditioning, ModelFamily


class StableDiffusion:
    """Stable Diffusion 1.x and 2.x."""

    name = "stable_diffusion"
    component = "unet"
    pipeline_class = StableDiffusionPipeline
    denoiser_class = UNet2DConditionModel
    process = NoiseSchedule()
    targets = UNET_TARGETS
    default_targets = "wide"
    latent_multiple = 1

    def latent_shape(self, pipeline: DiffusionPipeline) -> tuple[int, int, int]:
        return unet_latent_shape(pipeline)

    def encode_prompt(self, pipeline: DiffusionPipeline, prompt: str) -> Conditioning:
        """Encode a prompt; one longer than the tokenizer's limit is cut, and the log says what was lost."""
        return {"prompt_embeds": pipeline.encode_prompt(prompt, pipeline.device, 1, False)[0][0]}

    def unconditional(self, pipeline: DiffusionPipeline) -> Conditioning | None:
        return self.encode_prompt(pipeline, "")

    def forward(
        self,
        module: ModelMixin,
        latents: Tensor,
        time: Tensor,
        conditioning: Conditioning,
        *,
        guidance: float | None,  # noqa: ARG002 - the protocol's
    ) -> Tensor:
        return cast(Tensor, module(latents, time, conditioning["prompt_embeds"], return_dict=False)[0])

    def decode(self, pipeline: DiffusionPipeline, latents: Tensor) -> tuple[Tensor, list[bool]]:
        pixels = pipeline.vae.decode(unscale_latents(pipeline, latents), return_dict=False)[0]
        pixels, flags = pipeline.run_safety_checker(pixels, latents.device, latents.dtype)
        return pixels, [False] * len(latents) if flags is None else [bool(flag) for flag in flags]

    def encode(self, pipeline: DiffusionPipeline, pixels: Tensor) -> Tensor:
        return cast(Tensor, posterior_mode(pipeline.vae, pixels) * pipeline.vae.config.scaling_factor)


FAMILY: ModelFamily = StableDiffusion()

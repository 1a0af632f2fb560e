"""Stable Diffusion 3 and 3.5: a two-stream transformer, two CLIP text encoders and T5 (or none), flow matching.

Shapes:  B images;  C H W latent channels, height, width;  S tokens of a prompt (77 + 256);  D P widths.
"""

from typing import cast

from diffusers import DiffusionPipeline, ModelMixin, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor

from dmpo_app.diffusion.families.components import TRANSFORMER_TARGETS, decode_shifted, encode_shifted
from dmpo_app.diffusion.families.noise_schedule import FlowMatching
from dmpo_app.diffusion.families.protocol import Conditioning, ModelFamily


class StableDiffusion3:
    """Stable Diffusion 3 medium, 3.5 medium and 3.5 large."""

    name = "stable_diffusion_3"
    component = "transformer"
    pipeline_class = StableDiffusion3Pipeline
    denoiser_class = SD3Transformer2DModel
    process = FlowMatching()
    targets = TRANSFORMER_TARGETS
    default_targets = "attention"
    latent_multiple = 2

    def latent_shape(self, pipeline: DiffusionPipeline) -> tuple[int, int, int]:
        config = pipeline.transformer.config
        return config.in_channels, config.sample_size, config.sample_size

    def encode_prompt(self, pipeline: DiffusionPipeline, prompt: str) -> Conditioning:
        embeds, _, pooled, _ = pipeline.encode_prompt(
            prompt, None, None, device=pipeline.device, do_classifier_free_guidance=False
        )
        return {"prompt_embeds": embeds[0], "pooled_prompt_embeds": pooled[0]}

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
        prediction = module(
            hidden_states=latents,
            timestep=time.expand(len(latents)),
            encoder_hidden_states=conditioning["prompt_embeds"],
            pooled_projections=conditioning["pooled_prompt_embeds"],
            return_dict=False,
        )[0]
        return cast(Tensor, prediction)

    def decode(self, pipeline: DiffusionPipeline, latents: Tensor) -> tuple[Tensor, list[bool]]:
        return decode_shifted(pipeline, latents)

    def encode(self, pipeline: DiffusionPipeline, pixels: Tensor) -> Tensor:
        return encode_shifted(pipeline, pixels)


FAMILY: ModelFamily = StableDiffusion3()

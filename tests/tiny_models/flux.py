"""A tiny random FluxPipeline: packed latents, guidance embedding (dev) or none (schnell), CLIP and T5."""

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel

from tests.tiny_models.parts import T5_WIDTH, autoencoder, t5_encoder, t5_tokenizer
from tests.tiny_pipeline import clip_config, clip_tokenizer

LATENT_SHAPE = (4, 8, 8)


def make_tiny_flux(folder: Path, *, seed: int = 0, guided: bool = True) -> Path:
    """Write the model to `folder` as safetensors and return the folder. Not `guided` is as schnell is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0 if guided else 1.0, use_dynamic_shifting=guided),
            vae=autoencoder(scaling_factor=0.3611, shift_factor=0.1159),
            text_encoder=CLIPTextModel(clip_config()),
            tokenizer=clip_tokenizer(),
            text_encoder_2=t5_encoder(),
            tokenizer_2=t5_tokenizer(512),
            transformer=FluxTransformer2DModel(
                patch_size=1,
                in_channels=4 * LATENT_SHAPE[0],
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=T5_WIDTH,
                pooled_projection_dim=16,
                guidance_embeds=guided,
                axes_dims_rope=(2, 2, 4),
            ),
        )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder

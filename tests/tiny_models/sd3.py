"""A tiny random StableDiffusion3Pipeline as 3.5 medium is made: two CLIP encoders, T5, dual attention, shift 3."""

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModelWithProjection

from tests.tiny_models.parts import T5_WIDTH, autoencoder, t5_encoder, t5_tokenizer
from tests.tiny_pipeline import clip_config, clip_tokenizer

LATENT_SHAPE = (4, 8, 8)


def make_tiny_sd3(folder: Path, *, seed: int = 0, with_t5: bool = True) -> Path:
    """Write the model to `folder` as safetensors and return the folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = StableDiffusion3Pipeline(
            transformer=_transformer(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=autoencoder(scaling_factor=1.5305, shift_factor=0.0609),
            text_encoder=CLIPTextModelWithProjection(clip_config()),
            tokenizer=clip_tokenizer(),
            text_encoder_2=CLIPTextModelWithProjection(clip_config()),
            tokenizer_2=clip_tokenizer(),
            text_encoder_3=t5_encoder() if with_t5 else None,
            tokenizer_3=t5_tokenizer(256) if with_t5 else None,
        )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _transformer() -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=LATENT_SHAPE[1],
        patch_size=2,
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=T5_WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    )

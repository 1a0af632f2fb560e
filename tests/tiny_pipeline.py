"""A tiny random StableDiffusionPipeline folder with every part that Stable Diffusion 1.5 has.

Cross-attention down, mid and up blocks, transformer blocks, a CLIP text encoder with its byte-level tokenizer, a
Kullback-Leibler autoencoder and a DDIM scheduler; about 40 thousand parameters, made in a second, the same for the
same seed. Latents are 4 x 8 x 8, images 32 x 32 pixels, prompts up to 16 tokens.
"""

from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

MAX_TOKENS = 16
LATENT_SHAPE = (4, 8, 8)
IMAGE_SIZE = 32
_START, _END = "<|startoftext|>", "<|endoftext|>"


def make_tiny_pipeline(
    folder: Path,
    *,
    seed: int = 0,
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon",
    zero_snr: bool = False,
    safety_checker: Literal["flags everything"] | None = None,
) -> Path:
    """Write the model to `folder` as safetensors and return the folder. Another seed gives other weights.

    `zero_snr`: a schedule that ends in pure noise, and samplers that begin there, as some Stable Diffusion 2.1 have.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = StableDiffusionPipeline(
            unet=tiny_unet(),
            vae=_vae(),
            text_encoder=CLIPTextModel(clip_config()),
            tokenizer=clip_tokenizer(),
            scheduler=DDIMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                clip_sample=False,
                set_alpha_to_one=False,
                steps_offset=1,
                prediction_type=prediction_type,
                rescale_betas_zero_snr=zero_snr,
                timestep_spacing="trailing" if zero_snr else "leading",
            ),
            safety_checker=None if safety_checker is None else _stern_safety_checker(),
            feature_extractor=None
            if safety_checker is None
            else CLIPImageProcessor(size=IMAGE_SIZE, crop_size=IMAGE_SIZE),
            requires_safety_checker=safety_checker is not None,
        )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def tiny_unet(*, use_linear_projection: bool = False) -> UNet2DConditionModel:
    """The pipeline's denoiser, with weights from torch's own generator."""
    return UNet2DConditionModel(
        sample_size=LATENT_SHAPE[1],
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
        use_linear_projection=use_linear_projection,
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_SHAPE[0],
        block_out_channels=(4, 8, 8),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        sample_size=IMAGE_SIZE,
    )


def clip_config() -> CLIPTextConfig:
    vocabulary = _vocabulary()
    return CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=vocabulary[_START],
        eos_token_id=vocabulary[_END],
        pad_token_id=vocabulary[_END],
    )


def clip_tokenizer() -> CLIPTokenizer:
    # `vocab=` and `merges=`: the older `vocab_file=` and `merges_file=` are silently ignored by transformers 5.
    return CLIPTokenizer(vocab=_vocabulary(), merges=[], model_max_length=MAX_TOKENS)


def _stern_safety_checker() -> StableDiffusionSafetyChecker:
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(vision_config={**vision, "image_size": IMAGE_SIZE, "patch_size": 16}, projection_dim=16)
    )
    checker.concept_embeds_weights.data.fill_(-2.0)  # every cosine similarity is above this threshold
    return checker


def _vocabulary() -> dict[str, int]:
    """One token a byte, alone and at the end of a word, as in CLIP but without merges."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    characters = [chr(code) for code in printable] + [chr(256 + index) for index in range(256 - len(printable))]
    tokens = [*characters, *(character + "</w>" for character in characters), _START, _END]
    return {token: index for index, token in enumerate(tokens)}

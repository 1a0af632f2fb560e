"""Export of the trained parts as a `StableDiffusionPipeline` folder, float16 safetensors."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from dmpo_app.io.files import publish_folder
from examples.pocket_model.denoiser import PocketDenoiser
from examples.pocket_model.networks import build_noise_scheduler
from examples.pocket_model.tokenizer import build_tokenizer

USUAL_SAMPLING = {"num_steps": 20, "guidance": 3.0}
"""Written beside the model: the studio reads from it how the model is sampled where no setting says so."""


def build_pipeline(
    autoencoder: AutoencoderKL, denoiser: PocketDenoiser, scaling_factor: float
) -> StableDiffusionPipeline:
    """Build the pipeline from trained parts; the parts are copied, not shared."""
    tokenizer = build_tokenizer()
    autoencoder = _copy(autoencoder)
    autoencoder.register_to_config(scaling_factor=scaling_factor)
    own = PocketDenoiser(tokenizer)
    own.load_state_dict(denoiser.state_dict())
    return StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=own.text_encoder.eval(),
        tokenizer=tokenizer,
        unet=own.unet.eval(),
        scheduler=build_noise_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _copy(autoencoder: AutoencoderKL) -> AutoencoderKL:
    copy = AutoencoderKL.from_config(autoencoder.config)
    copy.load_state_dict(autoencoder.state_dict())
    return copy.eval()


def save_pipeline(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write the folder beside its place, then swap it in, so that a reader never finds half a model."""
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    pipeline.to(dtype=torch.float16).save_pretrained(unfinished, safe_serialization=True)
    (unfinished / "sampling.json").write_text(json.dumps(USUAL_SAMPLING, indent=2) + "\n", encoding="utf-8")
    publish_folder(unfinished, folder, replace=True)

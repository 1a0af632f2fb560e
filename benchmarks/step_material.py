"""Material of the step benchmark: model folders with random weights, and pairs as the diffusers scripts want them.

The pairs are a folder with one parquet file: jpg_0, jpg_1 as bytes, label_0, caption. Nothing is downloaded.
"""

import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from dmpo_app.exchange.importing.starter_pairs import read_starter_pairs
from dmpo_app.settings import POCKET_MODEL, Settings

SPLIT = "validation"
"""The scripts' default."""
_CLIP_TOKENS = 77


@dataclass(frozen=True, slots=True)
class Shape:
    """A model to measure: the script for it, its image and latent sizes in pixels."""

    script: str
    resolution: int
    latent_factor: int
    build: Callable[[Path], None] | None
    """Writes the model's folder with random weights; None: it ships with the project."""

    def model_folder(self, name: str, work: Path) -> Path:
        """The model's folder, made in `work` at the first call."""
        if self.build is None:
            return POCKET_MODEL
        folder = work / name
        if not (folder / "model_index.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            self.build(folder)  # model_index.json is written last
        return folder


def write_pairs(folder: Path, *, resolution: int, count: int) -> Path:
    """The first `count` starter pairs at `resolution` pixels, repeated if there are not as many; image 0 preferred.

    The count should be a multiple of the batch: the scripts' last batch of an epoch is smaller otherwise.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    pairs = read_starter_pairs(Settings().pool.starter_pairs).pairs
    chosen = [pairs[i % len(pairs)] for i in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "jpg_0": [_jpeg(pair.image_a.png, resolution) for pair in chosen],
            "jpg_1": [_jpeg(pair.image_b.png, resolution) for pair in chosen],
            "label_0": [1.0] * count,
            "caption": [pair.prompt for pair in chosen],
        }
    )
    pq.write_table(table, folder / f"{SPLIT}.parquet")
    return folder


def _jpeg(png: bytes, resolution: int) -> bytes:
    with Image.open(io.BytesIO(png)) as image:
        resized = image.convert("RGB").resize((resolution, resolution), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    resized.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def build_stable_diffusion(folder: Path) -> None:
    """The networks of Stable Diffusion 1.5 (860 M parameters in the denoiser), float16, weights random."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    tokenizer = _tokenizer()
    pipeline = StableDiffusionPipeline(
        unet=unet.half(),
        vae=_autoencoder(sample_size=512, scaling_factor=0.18215).half(),
        text_encoder=CLIPTextModel(_text_config(tokenizer, 768, 12, 12, "quick_gelu")).half(),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(**_NOISE_SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


def build_stable_diffusion_xl(folder: Path) -> None:
    """The networks of Stable Diffusion XL (2.6 B parameters in the denoiser), float16, weights random."""
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    unet = UNet2DConditionModel(
        sample_size=128,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(320, 640, 1280),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    tokenizer = _tokenizer()
    second = CLIPTextModelWithProjection(_text_config(tokenizer, 1280, 32, 20, "gelu"))
    pipeline = StableDiffusionXLPipeline(
        unet=unet.half(),
        vae=_autoencoder(sample_size=1024, scaling_factor=0.13025).half(),
        text_encoder=CLIPTextModel(_text_config(tokenizer, 768, 12, 12, "quick_gelu")).half(),
        text_encoder_2=second.half(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        scheduler=DDIMScheduler(**_NOISE_SCHEDULE),
    )
    pipeline.save_pretrained(folder)


_NOISE_SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def _tokenizer() -> Any:
    """The pocket model's, padded to CLIP's length: what a token means does not matter to random weights."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(POCKET_MODEL, subfolder="tokenizer", model_max_length=_CLIP_TOKENS)


def _text_config(tokenizer: Any, width: int, layers: int, heads: int, activation: str) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_act=activation,
        vocab_size=49408,
        max_position_embeddings=_CLIP_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _autoencoder(*, sample_size: int, scaling_factor: float) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        sample_size=sample_size,
        scaling_factor=scaling_factor,
    )


SHAPES = {
    "pocket": Shape("train_diffusion_dpo.py", 128, 8, None),
    "sd15": Shape("train_diffusion_dpo.py", 512, 8, build_stable_diffusion),
    "sdxl": Shape("train_diffusion_dpo_sdxl.py", 1024, 8, build_stable_diffusion_xl),
}

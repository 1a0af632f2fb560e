"""Parts that several tiny models have."""

import string

from diffusers import AutoencoderKL
from transformers import T5Config, T5EncoderModel, T5TokenizerFast

from tests.tiny_pipeline import IMAGE_SIZE

T5_WIDTH = 32
_T5_SPECIAL = ("<pad>", "</s>", "<unk>")
_T5_VOCABULARY = [*_T5_SPECIAL, "▁", *string.ascii_lowercase, *string.digits, ",", "."]


def autoencoder(*, latent_channels: int = 4, shift_factor: float | None = None, scaling_factor: float) -> AutoencoderKL:
    """Four pixels a latent side; with a shift it is one of the kind that SD3 and Flux have."""
    old_kind = shift_factor is None
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=latent_channels,
        block_out_channels=(4, 8, 8),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        sample_size=IMAGE_SIZE,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
        use_quant_conv=old_kind,
        use_post_quant_conv=old_kind,
    )


def t5_encoder() -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(_T5_VOCABULARY), d_model=T5_WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
        feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return T5EncoderModel(config)


def t5_tokenizer(max_length: int) -> T5TokenizerFast:
    """A character is a token."""
    scores = [(token, 0.0 if token in _T5_SPECIAL else -2.0) for token in _T5_VOCABULARY]
    return T5TokenizerFast(vocab=scores, extra_ids=0, model_max_length=max_length)

"""BLIP's image tower and its text tower with cross attention, from the names of the original code to transformers'.

The original is salesforce/BLIP as ImageReward carries it (models/BLIP/vit.py, med.py). What transformers must be told
for the two to compute the same: layer normalisations of 1e-6 in the image tower (its default is 1e-5), heads of 64
channels in both towers (its text default is 8 heads of 96). Sizes are read off the tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import accelerate
from torch import Tensor
from transformers import BlipTextConfig, BlipVisionConfig
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from dmpo_app.scoring.network_loading import explained, take

_HEAD_CHANNELS = 64
_VISION = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding",
    "norm": "post_layernorm",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")
_RECOMPUTED = "embeddings.position_ids"  # 0, 1, 2, ...: a buffer that older checkpoints carry


@dataclass(frozen=True, slots=True)
class Blip:
    """The two towers; `image_size` in pixels."""

    vision: BlipVisionModel
    text: BlipTextModel
    image_size: int


def build_blip(vision_tensors: Mapping[str, Tensor], text_tensors: Mapping[str, Tensor], source: str) -> Blip:
    """The towers from the tensors below `visual_encoder.` and `text_encoder.`, under their original names.

    Raises ModelUnavailable when one is missing, of another shape, or not a part of BLIP.
    """
    with explained(source):
        vision_config, text_config = _vision_config(vision_tensors), _text_config(text_tensors)
        with accelerate.init_empty_weights():  # half a billion random numbers would only be overwritten
            vision, text = BlipVisionModel(vision_config), BlipTextModel(text_config, add_pooling_layer=False)
    take(vision, {_vision_name(name): value for name, value in vision_tensors.items()}, source)
    take(text, {name: value for name, value in text_tensors.items() if name != _RECOMPUTED}, source)
    return Blip(vision, text, int(vision_config.image_size))


def _vision_name(name: str) -> str:
    """transformers' name; one that BLIP does not have comes back as it is."""
    if block := _BLOCK.fullmatch(name):
        number, part, kind = block.groups()
        return f"encoder.layers.{number}.{_VISION.get(part, part)}.{kind}"
    if name in _VISION:
        return _VISION[name]
    part, _, kind = name.rpartition(".")
    return f"{_VISION.get(part, part)}.{kind}"


def _vision_config(tensors: Mapping[str, Tensor]) -> BlipVisionConfig:
    width, _, patch_size, _ = tensors["patch_embed.proj.weight"].shape
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=tensors["blocks.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_count(tensors, "blocks."),
        num_attention_heads=width // _HEAD_CHANNELS,
        image_size=math.isqrt(tensors["pos_embed"].shape[1] - 1) * patch_size,
        patch_size=patch_size,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        attn_implementation="eager",
    )


def _text_config(tensors: Mapping[str, Tensor]) -> BlipTextConfig:
    vocab_size, width = tensors["embeddings.word_embeddings.weight"].shape
    return BlipTextConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        encoder_hidden_size=tensors["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        intermediate_size=tensors["encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=_count(tensors, "encoder.layer."),
        num_attention_heads=width // _HEAD_CHANNELS,
        max_position_embeddings=tensors["embeddings.position_embeddings.weight"].shape[0],
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        is_decoder=True,  # this gives the layers their cross attention; attention to later words is decided at the call
        attn_implementation="eager",
    )


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})

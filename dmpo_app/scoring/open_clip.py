"""CLIP weights under open_clip's names as transformers' CLIPModel.

The two lay out the same network: open_clip keeps query, key and value in one matrix and the projections transposed.
Converting is a renaming, so open_clip itself (with timm and torchvision behind it) is not needed, and scores go through
the same code as PickScore's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import accelerate
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from dmpo_app.errors import ModelUnavailable
from dmpo_app.scoring.network_loading import explained, take

# open_clip's model_configs/ViT-H-14.json
VIT_H_14: dict[str, Any] = {
    "embed_dim": 1024,
    "vision_cfg": {"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24},
}

_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_WHOLE = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # the spelling is transformers'
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TRANSPOSED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
_TOWERS = {"visual.transformer.resblocks.": "vision_model", "transformer.resblocks.": "text_model"}
_RECOMPUTED = {"attn_mask"}  # the causal mask, a buffer that older checkpoints carry


def build_clip_model(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], source: str) -> CLIPModel:
    """The model from open_clip's tensors and its `model_cfg` settings. Raises ModelUnavailable when they do not fit."""
    with explained(source):
        config = _config(settings)
        with accelerate.init_empty_weights():  # a billion random numbers would only be overwritten
            model = CLIPModel(config)
    take(model, rename(tensors, source), source)
    return model


def rename(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The same tensors under CLIPModel's names. Raises ModelUnavailable for a name open_clip's CLIP does not have."""
    renamed: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name in _RECOMPUTED:
            continue
        if name in _WHOLE:
            renamed[_WHOLE[name]] = value
        elif name in _TRANSPOSED:
            renamed[_TRANSPOSED[name]] = value.T.contiguous()
        else:
            renamed.update(_renamed_in_block(name, value, source))
    return renamed


def _renamed_in_block(name: str, value: Tensor, source: str) -> Iterable[tuple[str, Tensor]]:
    for prefix, tower in _TOWERS.items():
        if name.startswith(prefix):
            number, _, part = name.removeprefix(prefix).partition(".")
            layer = f"{tower}.encoder.layers.{number}"
            if part in {"attn.in_proj_weight", "attn.in_proj_bias"}:
                kind = part.removeprefix("attn.in_proj_")
                thirds = zip("qkv", value.chunk(3), strict=True)
                return [(f"{layer}.self_attn.{letter}_proj.{kind}", third.contiguous()) for letter, third in thirds]
            stem, _, kind = part.rpartition(".")
            if stem in _BLOCK:
                return [(f"{layer}.{_BLOCK[stem]}.{kind}", value)]
    raise ModelUnavailable(
        f"{source} holds {name}, which open_clip's CLIP does not have; weights in open_clip's layout are needed "
        "(the state_dict of HPS_v2.1_compressed.pt, for example)"
    )


def _config(settings: Mapping[str, Any]) -> CLIPConfig:
    vision, text = settings["vision_cfg"], settings["text_cfg"]
    activation = "quick_gelu" if settings.get("quick_gelu") else "gelu"
    return CLIPConfig(
        projection_dim=settings["embed_dim"],
        vision_config={
            "hidden_size": vision["width"],
            "intermediate_size": int(vision["width"] * vision.get("mlp_ratio", 4.0)),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision.get("head_width", 64),
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "hidden_act": activation,
        },
        text_config={
            "vocab_size": text["vocab_size"],
            "hidden_size": text["width"],
            "intermediate_size": int(text["width"] * text.get("mlp_ratio", 4.0)),
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["context_length"],
            "hidden_act": activation,
            # open_clip reads the prompt at its highest token, which is the end mark, the last of the vocabulary.
            "eos_token_id": text["vocab_size"] - 1,
            "bos_token_id": text["vocab_size"] - 2,
        },
    )

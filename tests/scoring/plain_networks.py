"""Plain formulas of open_clip's CLIP, BLIP with cross attention and the linear head, over the original names.

The scorers' results after converting the names are held against these.

Shapes:  B images;  T tokens (image patches or words);  D width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

Tensors = Mapping[str, Tensor]


def open_clip_cosine(tensors: Tensors, pixels: Tensor, tokens: Tensor, *, image_heads: int, text_heads: int) -> Tensor:
    """cos(image, text), (B,): pixels (B, 3, S, S), tokens (B, T) with the highest token at the prompt's end."""
    patches = functional.conv2d(pixels, tensors["visual.conv1.weight"], stride=tensors["visual.conv1.weight"].shape[-1])
    patches = patches.flatten(2).transpose(1, 2)
    first = tensors["visual.class_embedding"].expand(len(pixels), 1, -1)
    x = _norm(tensors, "visual.ln_pre", torch.cat([first, patches], 1) + tensors["visual.positional_embedding"])
    for layer in range(_num_layers(tensors, "visual.transformer.resblocks.")):
        x = _open_clip_block(tensors, f"visual.transformer.resblocks.{layer}", x, image_heads, mask=None)
    image = _norm(tensors, "visual.ln_post", x[:, 0]) @ tensors["visual.proj"]

    y = tensors["token_embedding.weight"][tokens] + tensors["positional_embedding"][: tokens.shape[1]]
    later = torch.full((tokens.shape[1], tokens.shape[1]), float("-inf")).triu(1)
    for layer in range(_num_layers(tensors, "transformer.resblocks.")):
        y = _open_clip_block(tensors, f"transformer.resblocks.{layer}", y, text_heads, mask=later)
    end = _norm(tensors, "ln_final", y)[torch.arange(len(tokens)), tokens.argmax(-1)]
    return functional.cosine_similarity(image, end @ tensors["text_projection"])


def image_reward(tensors: Tensors, pixels: Tensor, tokens: Tensor, present: Tensor) -> Tensor:
    """The reward before normalisation, (B,); `present` (B, T) is 1 for words and 0 for padding."""
    x = blip_image_states(tensors, "blip.visual_encoder", pixels)
    text = "blip.text_encoder"
    y = tensors[f"{text}.embeddings.word_embeddings.weight"][tokens]
    y = y + tensors[f"{text}.embeddings.position_embeddings.weight"][: tokens.shape[1]]
    y = _norm(tensors, f"{text}.embeddings.LayerNorm", y, eps=1e-12)
    padding = (1.0 - present[:, None, None, :].float()) * -10000.0
    for layer in range(_num_layers(tensors, f"{text}.encoder.layer.")):
        name = f"{text}.encoder.layer.{layer}"
        y = _bert_attention(tensors, f"{name}.attention", y, y, mask=padding)
        y = _bert_attention(tensors, f"{name}.crossattention", y, x, mask=None)
        inner = functional.gelu(_linear(tensors, f"{name}.intermediate.dense", y))
        y = _norm(tensors, f"{name}.output.LayerNorm", _linear(tensors, f"{name}.output.dense", inner) + y, eps=1e-12)
    return linear_head({name.removeprefix("mlp."): value for name, value in tensors.items()}, y[:, 0])


def blip_image_states(tensors: Tensors, name: str, pixels: Tensor) -> Tensor:
    """(B, T, D), the class token first."""
    weight, bias = tensors[f"{name}.patch_embed.proj.weight"], tensors[f"{name}.patch_embed.proj.bias"]
    patches = functional.conv2d(pixels, weight, bias, stride=weight.shape[-1]).flatten(2).transpose(1, 2)
    x = torch.cat([tensors[f"{name}.cls_token"].expand(len(pixels), -1, -1), patches], 1) + tensors[f"{name}.pos_embed"]
    for layer in range(_num_layers(tensors, f"{name}.blocks.")):
        block = f"{name}.blocks.{layer}"
        queries, keys, values = _linear(
            tensors, f"{block}.attn.qkv", _norm(tensors, f"{block}.norm1", x, eps=1e-6)
        ).chunk(3, -1)
        x = x + _linear(tensors, f"{block}.attn.proj", _attend(queries, keys, values, x.shape[-1] // 64, None))
        inner = functional.gelu(_linear(tensors, f"{block}.mlp.fc1", _norm(tensors, f"{block}.norm2", x, eps=1e-6)))
        x = x + _linear(tensors, f"{block}.mlp.fc2", inner)
    return _norm(tensors, f"{name}.norm", x, eps=1e-6)


def linear_head(tensors: Tensors, features: Tensor) -> Tensor:
    """The head's output, (B,)."""
    for number in (0, 2, 4, 6, 7):
        features = _linear(tensors, f"layers.{number}", features)
    return features[:, 0]


def _open_clip_block(tensors: Tensors, name: str, x: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    normed = _norm(tensors, f"{name}.ln_1", x)
    packed = normed @ tensors[f"{name}.attn.in_proj_weight"].T + tensors[f"{name}.attn.in_proj_bias"]
    queries, keys, values = packed.chunk(3, -1)
    x = x + _linear(tensors, f"{name}.attn.out_proj", _attend(queries, keys, values, heads, mask))
    inner = functional.gelu(_linear(tensors, f"{name}.mlp.c_fc", _norm(tensors, f"{name}.ln_2", x)))
    return x + _linear(tensors, f"{name}.mlp.c_proj", inner)


def _bert_attention(tensors: Tensors, name: str, y: Tensor, read: Tensor, mask: Tensor | None) -> Tensor:
    queries = _linear(tensors, f"{name}.self.query", y)
    keys, values = _linear(tensors, f"{name}.self.key", read), _linear(tensors, f"{name}.self.value", read)
    seen = _attend(queries, keys, values, y.shape[-1] // 64, mask)
    return _norm(tensors, f"{name}.output.LayerNorm", _linear(tensors, f"{name}.output.dense", seen) + y, eps=1e-12)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    def split(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(1, 2)

    weights: Tensor = split(queries) @ split(keys).transpose(-1, -2) / (queries.shape[-1] / heads) ** 0.5
    if mask is not None:
        weights = weights + mask
    return (weights.softmax(-1) @ split(values)).transpose(1, 2).flatten(2)


def _linear(tensors: Tensors, name: str, x: Tensor) -> Tensor:
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def _norm(tensors: Tensors, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps)


def _num_layers(tensors: Tensors, prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})

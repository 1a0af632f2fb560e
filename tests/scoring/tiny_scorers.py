"""Tiny random weights of every scorer, in the layouts in which the real ones are published.

CLIP's are written with `save_pretrained`; open_clip's, BLIP's and the heads' under their original names, drawn here and
not derived from the networks under test. Images are 32 x 32 in patches of 8 or 16.
"""

import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import BertTokenizer, CLIPConfig, CLIPModel, CLIPTokenizer

MAX_TOKENS = 16
START, END = "<|startoftext|>", "<|endoftext|>"
OPEN_CLIP: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 48, "head_width": 12, "patch_size": 8},
    "text_cfg": {"context_length": MAX_TOKENS, "vocab_size": 190, "width": 32, "heads": 4, "layers": 2},
}
BLIP_WIDTH, BLIP_TEXT_WIDTH, BLIP_LAYERS, BLIP_PATCH, BLIP_VOCABULARY = 128, 64, 2, 16, 40


def clip_vocabulary() -> dict[str, int]:
    """One token a printable character, alone and at the end of a word; the end mark is the last, as in CLIP's own."""
    characters = string.printable[:94]
    tokens = [*characters, *(character + "</w>" for character in characters), START, END]
    return {token: index for index, token in enumerate(tokens)}


def write_clip_tokenizer(folder: Path) -> None:
    CLIPTokenizer(vocab=clip_vocabulary(), merges=[], model_max_length=MAX_TOKENS).save_pretrained(folder)


def make_clip(folder: Path, *, seed: int = 0) -> Path:
    """A CLIPModel with its tokenizer, as `save_pretrained` writes them."""
    vocabulary = clip_vocabulary()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(
            CLIPConfig(
                projection_dim=20,
                logit_scale_init_value=4.6,
                vision_config={
                    "hidden_size": 32,
                    "intermediate_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "image_size": 32,
                    "patch_size": 8,
                },
                text_config={
                    "vocab_size": len(vocabulary),
                    "hidden_size": 32,
                    "intermediate_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "max_position_embeddings": MAX_TOKENS,
                    "bos_token_id": vocabulary[START],
                    "eos_token_id": vocabulary[END],
                    "pad_token_id": vocabulary[END],
                },
            )
        )
    model.save_pretrained(folder)
    write_clip_tokenizer(folder)
    return folder


def make_aesthetic(folder: Path, *, seed: int = 0) -> Path:
    """CLIP and a head of its dimension in one folder."""
    make_clip(folder, seed=seed)
    save_file(head_tensors(20, seed=seed), folder / "sac+logos+ava1-l14-linearMSE.safetensors")
    return folder


def make_hpsv2(folder: Path, *, seed: int = 0) -> Path:
    """open_clip's state dict with its configuration, and the tokenizer."""
    folder.mkdir(parents=True)
    save_file(open_clip_tensors(seed=seed), folder / "hps.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": OPEN_CLIP, "preprocess_cfg": {}}))
    write_clip_tokenizer(folder)
    return folder


def make_imagereward(folder: Path, *, seed: int = 0) -> Path:
    """The state dict of ImageReward.pt with what else it carries, and a vocabulary in BERT's format."""
    folder.mkdir(parents=True)
    save_file(image_reward_tensors(seed=seed), folder / "ImageReward.safetensors")
    marks = {token: index for index, token in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))}
    letters = {letter: index + len(marks) for index, letter in enumerate(string.ascii_lowercase)}
    BertTokenizer(vocab={**marks, **letters}).save_pretrained(folder)
    return folder


def head_tensors(dimension: int, *, seed: int) -> dict[str, Tensor]:
    """`layers.N`, wide enough that the score differs visibly between images."""
    draw = _Draw(seed)
    sizes = {0: (1024, dimension), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}
    tensors: dict[str, Tensor] = {}
    for number, (rows, columns) in sizes.items():
        tensors |= draw.linear(f"layers.{number}", rows, columns)
    return tensors


def open_clip_tensors(*, seed: int) -> dict[str, Tensor]:
    draw = _Draw(seed)
    vision, text, shared = OPEN_CLIP["vision_cfg"], OPEN_CLIP["text_cfg"], OPEN_CLIP["embed_dim"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    tensors = {
        "logit_scale": torch.tensor(4.2),
        "positional_embedding": draw.small(text["context_length"], text["width"]),
        "token_embedding.weight": draw.small(text["vocab_size"], text["width"]),
        "text_projection": draw(text["width"], shared),
        "visual.class_embedding": draw.small(vision["width"]),
        "visual.positional_embedding": draw.small(patches + 1, vision["width"]),
        "visual.proj": draw(vision["width"], shared),
        "visual.conv1.weight": draw.small(vision["width"], 3, vision["patch_size"], vision["patch_size"]),
        **draw.norm("visual.ln_pre", vision["width"]),
        **draw.norm("visual.ln_post", vision["width"]),
        **draw.norm("ln_final", text["width"]),
    }
    for prefix, tower in (("visual.transformer", vision), ("transformer", text)):
        for layer in range(tower["layers"]):
            tensors |= dict(_open_clip_block(draw, f"{prefix}.resblocks.{layer}", tower["width"]))
    return tensors


def image_reward_tensors(*, seed: int) -> dict[str, Tensor]:
    draw = _Draw(seed)
    width, text_width = BLIP_WIDTH, BLIP_TEXT_WIDTH
    vision, text = "blip.visual_encoder", "blip.text_encoder"
    tensors = {
        f"{vision}.cls_token": draw.small(1, 1, width),
        f"{vision}.pos_embed": draw.small(1, (32 // BLIP_PATCH) ** 2 + 1, width),
        f"{vision}.patch_embed.proj.weight": draw.small(width, 3, BLIP_PATCH, BLIP_PATCH),
        f"{vision}.patch_embed.proj.bias": draw.small(width),
        **draw.norm(f"{vision}.norm", width),
        f"{text}.embeddings.position_ids": torch.arange(64)[None],
        f"{text}.embeddings.word_embeddings.weight": draw.small(BLIP_VOCABULARY, text_width),
        f"{text}.embeddings.position_embeddings.weight": draw.small(64, text_width),
        **draw.norm(f"{text}.embeddings.LayerNorm", text_width),
        **draw.linear("blip.vision_proj", 16, width),
        **draw.linear("blip.text_proj", 16, text_width),
    }
    for layer in range(BLIP_LAYERS):
        tensors |= dict(_blip_image_block(draw, f"{vision}.blocks.{layer}", width))
        tensors |= dict(_blip_text_block(draw, f"{text}.encoder.layer.{layer}", text_width, width))
    return tensors | {f"mlp.{name}": value for name, value in head_tensors(text_width, seed=seed).items()}


class _Draw:
    """Random tensors in the size of trained ones; norms and biases too, so that none can be swapped unseen."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        scale = shape[-1] ** -0.5 if len(shape) > 1 else 0.3
        return torch.randn(shape, generator=self._generator) * scale

    def small(self, *shape: int) -> Tensor:
        """As small as trained embeddings are: the layer norm behind them then shows whether its epsilon is right."""
        return 0.02 * self(*shape)

    def linear(self, name: str, rows: int, columns: int) -> dict[str, Tensor]:
        return {f"{name}.weight": self(rows, columns), f"{name}.bias": self(rows)}

    def norm(self, name: str, width: int) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + self(width), f"{name}.bias": self(width)}


def _open_clip_block(draw: _Draw, name: str, width: int) -> Iterator[tuple[str, Tensor]]:
    yield f"{name}.attn.in_proj_weight", draw(3 * width, width)
    yield f"{name}.attn.in_proj_bias", draw(3 * width)
    yield from draw.linear(f"{name}.attn.out_proj", width, width).items()
    yield from draw.linear(f"{name}.mlp.c_fc", 4 * width, width).items()
    yield from draw.linear(f"{name}.mlp.c_proj", width, 4 * width).items()
    yield from draw.norm(f"{name}.ln_1", width).items()
    yield from draw.norm(f"{name}.ln_2", width).items()


def _blip_image_block(draw: _Draw, name: str, width: int) -> Iterator[tuple[str, Tensor]]:
    yield from draw.norm(f"{name}.norm1", width).items()
    yield from draw.linear(f"{name}.attn.qkv", 3 * width, width).items()
    yield from draw.linear(f"{name}.attn.proj", width, width).items()
    yield from draw.norm(f"{name}.norm2", width).items()
    yield from draw.linear(f"{name}.mlp.fc1", 4 * width, width).items()
    yield from draw.linear(f"{name}.mlp.fc2", width, 4 * width).items()


def _blip_text_block(draw: _Draw, name: str, width: int, image_width: int) -> Iterator[tuple[str, Tensor]]:
    for attention, read in (("attention", width), ("crossattention", image_width)):
        yield from draw.linear(f"{name}.{attention}.self.query", width, width).items()
        yield from draw.linear(f"{name}.{attention}.self.key", width, read).items()
        yield from draw.linear(f"{name}.{attention}.self.value", width, read).items()
        yield from draw.linear(f"{name}.{attention}.output.dense", width, width).items()
        yield from draw.norm(f"{name}.{attention}.output.LayerNorm", width).items()
    yield from draw.linear(f"{name}.intermediate.dense", 2 * width, width).items()
    yield from draw.linear(f"{name}.output.dense", width, 2 * width).items()
    yield from draw.norm(f"{name}.output.LayerNorm", width).items()

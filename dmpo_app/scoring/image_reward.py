"""ImageReward v1.0 (Xu et al. 2023, arXiv 2304.05977): people's predicted rating of an image for a prompt.

It has mean 0 and spread 1.

BLIP's text tower reads the prompt with cross attention to the image; the first token's state goes through a linear
head, and (reward - mean) / deviation over the authors' validation images is the score.

Shapes:  B images;  L tokens, 35;  T image tokens.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import accelerate
import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import BertTokenizer, BlipTextConfig, BlipVisionConfig
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from dmpo_app.diffusion.placement import resolve_device
from dmpo_app.errors import ModelUnavailableError
from dmpo_app.scoring import networks, weights
from dmpo_app.scoring.registry import score_in_batches

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
    """BLIP's image and text tower; `image_size` in pixels."""

    vision: BlipVisionModel
    text: BlipTextModel
    image_size: int


def build_blip(vision_tensors: Mapping[str, Tensor], text_tensors: Mapping[str, Tensor], source: str) -> Blip:
    """Build the towers from the tensors below `visual_encoder.` and `text_encoder.`, under their original names.

    Raises ModelUnavailableError when one is missing, of another shape, or not a part of BLIP.
    """
    with networks.translate_load_errors(source):
        vision_config, text_config = _vision_config(vision_tensors), _text_config(text_tensors)
        with accelerate.init_empty_weights():  # half a billion random numbers would only be overwritten
            vision, text = BlipVisionModel(vision_config), BlipTextModel(text_config, add_pooling_layer=False)
    networks.load_strict(vision, {_vision_name(name): value for name, value in vision_tensors.items()}, source)
    networks.load_strict(text, {name: value for name, value in text_tensors.items() if name != _RECOMPUTED}, source)
    return Blip(vision, text, int(vision_config.image_size))


def _vision_name(name: str) -> str:
    """The transformers name of a vision tensor; a name that BLIP does not have comes back as it is."""
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


_CODE_VERSION = 1
_MEAN, _DEVIATION = 0.16717362830052426, 1.0333394966054072  # ImageReward.py of the original
_NUM_TOKENS = 35
_PARTS = ("blip.visual_encoder.", "blip.text_encoder.", "mlp.")


@dataclass(frozen=True, slots=True)
class ImageRewardScorer:
    """Scorer by the normalised reward.

    `scale`: the model was trained as softmax over the rewards of two images, before the normalisation.
    """

    identity: str
    vision: nn.Module
    text: nn.Module
    head: networks.RewardHead
    tokenizer: BertTokenizer
    preprocess: networks.Preprocess
    device: torch.device
    batch_size: int
    name: str = "imagereward"
    scale: float = 1 / _DEVIATION

    def score(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> NDArray[np.float32]:
        """Score images for their prompts; see `Scorer.score`. Prompts are cut at 35 tokens, as in the original."""
        return score_in_batches(self.name, self._reward, images, prompts, self.batch_size)

    @torch.inference_mode()
    def _reward(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> NDArray[np.float32]:
        pixels = torch.from_numpy(self.preprocess(images)).to(self.device)
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=_NUM_TOKENS, return_tensors="pt"
        ).to(self.device)
        states = self.text(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            encoder_hidden_states=self.vision(pixel_values=pixels).last_hidden_state,
        ).last_hidden_state
        rewards: Tensor = (self.head(states[:, 0]) - _MEAN) / _DEVIATION
        return cast(NDArray[np.float32], rewards.cpu().numpy())


def build_imagereward(source: str, device: str, batch_size: int) -> ImageRewardScorer:
    """Build ImageReward from a safetensors file with its tensors. Raises ModelUnavailableError or SetupError.

    BERT's vocabulary is taken from beside the file, or from google-bert/bert-base-uncased.
    """
    torch_device = resolve_device(device)
    path = weights.find_weights_file(source, conversion=weights.IMAGEREWARD)
    tensors = networks.read_tensors(path)
    vision_tensors, text_tensors, head_tensors = (_select_part(tensors, part, source) for part in _PARTS)
    blip = build_blip(vision_tensors, text_tensors, source)
    vocabulary = weights.bert_tokenizer_folder(path.parent)
    vocab_size, width = text_tensors["embeddings.word_embeddings.weight"].shape
    return ImageRewardScorer(
        identity=weights.identify("imagereward", _CODE_VERSION, [path, *weights.tokenizer_files(vocabulary)]),
        vision=networks.freeze(blip.vision, torch_device),
        text=networks.freeze(blip.text, torch_device),
        head=networks.freeze(networks.build_head(head_tensors, width, source), torch_device),
        tokenizer=_load_tokenizer(vocabulary, vocab_size),
        preprocess=networks.Preprocess(blip.image_size),
        device=torch_device,
        batch_size=batch_size,
    )


def _select_part(tensors: Mapping[str, Tensor], prefix: str, source: str) -> dict[str, Tensor]:
    """Select the tensors of one part by their names inside it; the rest of BLIP's training is left out."""
    part = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    if not part:
        raise ModelUnavailableError(f"{source} holds no {prefix}*; the tensors of ImageReward.pt are needed")
    return part


def _load_tokenizer(folder: Path, vocab_size: int) -> BertTokenizer:
    with networks.translate_load_errors(str(folder)):
        tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
    if len(tokenizer) > vocab_size:
        raise ModelUnavailableError(
            f"the tokenizer in {folder} knows {len(tokenizer)} tokens and the model {vocab_size}; BERT's is needed"
        )
    return tokenizer

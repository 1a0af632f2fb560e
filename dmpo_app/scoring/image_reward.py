"""ImageReward v1.0 (Xu et al. 2023, arXiv 2304.05977): how people would rate an image for a prompt, mean 0, spread 1.

BLIP's text tower reads the prompt with cross attention to the image; the first token's state goes through a linear
head, and (reward - mean) / deviation over the authors' validation images is the score.

Shapes:  B images;  L tokens, 35;  T image tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import BertTokenizer

from dmpo_app.diffusion.devices import resolve_device
from dmpo_app.errors import ModelUnavailable
from dmpo_app.scoring import conversions, weights
from dmpo_app.scoring.batches import in_batches
from dmpo_app.scoring.blip import build_blip
from dmpo_app.scoring.network_loading import explained, frozen, read_tensors
from dmpo_app.scoring.preprocess import Preprocess
from dmpo_app.scoring.reward_head import RewardHead, build_head

_CODE_VERSION = 1
_MEAN, _DEVIATION = 0.16717362830052426, 1.0333394966054072  # ImageReward.py of the original
_NUM_TOKENS = 35
_PARTS = ("blip.visual_encoder.", "blip.text_encoder.", "mlp.")


@dataclass(frozen=True, slots=True)
class ImageRewardScorer:
    """The normalised reward. `scale`: trained as softmax over the rewards of two images, before the normalisation."""

    identity: str
    vision: nn.Module
    text: nn.Module
    head: RewardHead
    tokenizer: BertTokenizer
    preprocess: Preprocess
    device: torch.device
    batch_size: int
    name: str = "imagereward"
    scale: float = 1 / _DEVIATION

    def score(self, images: Sequence[PIL.Image.Image], prompts: Sequence[str]) -> NDArray[np.float32]:
        """As `Scorer.score`. Prompts are cut at 35 tokens, as in the original."""
        return in_batches(self.name, self._reward, images, prompts, self.batch_size)

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
    """From a safetensors file with the tensors of ImageReward.pt. Raises ModelUnavailable or SetupProblem.

    BERT's vocabulary is taken from beside the file, or from google-bert/bert-base-uncased.
    """
    where = resolve_device(device)
    path = weights.find_weights_file(source, conversion=conversions.IMAGEREWARD)
    tensors = read_tensors(path)
    vision_tensors, text_tensors, head_tensors = (_below(tensors, part, source) for part in _PARTS)
    blip = build_blip(vision_tensors, text_tensors, source)
    vocabulary = weights.bert_tokenizer_folder(path.parent)
    vocab_size, width = text_tensors["embeddings.word_embeddings.weight"].shape
    return ImageRewardScorer(
        identity=weights.identify("imagereward", _CODE_VERSION, [path, *weights.tokenizer_files(vocabulary)]),
        vision=frozen(blip.vision, where),
        text=frozen(blip.text, where),
        head=frozen(build_head(head_tensors, width, source), where),
        tokenizer=_load_tokenizer(vocabulary, vocab_size),
        preprocess=Preprocess(blip.image_size),
        device=where,
        batch_size=batch_size,
    )


def _below(tensors: Mapping[str, Tensor], prefix: str, source: str) -> dict[str, Tensor]:
    """The tensors of one part by their names inside it; what else BLIP was trained with is left out."""
    part = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    if not part:
        raise ModelUnavailable(f"{source} holds no {prefix}*; the tensors of ImageReward.pt are needed")
    return part


def _load_tokenizer(folder: Path, vocab_size: int) -> BertTokenizer:
    with explained(str(folder)):
        tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
    if len(tokenizer) > vocab_size:
        raise ModelUnavailable(
            f"the tokenizer in {folder} knows {len(tokenizer)} tokens and the model {vocab_size}; BERT's is needed"
        )
    return tokenizer

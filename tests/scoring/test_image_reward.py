"""ImageReward from the names of its checkpoint computes what the original code's formulas compute."""

import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import save_file
from transformers import BertTokenizer

from dmpo_app.errors import ModelUnavailableError
from dmpo_app.scoring.networks import Preprocess
from dmpo_app.scoring.registry import build_scorer
from tests.scoring.plain_networks import image_reward
from tests.scoring.tiny_scorers import image_reward_tensors

Images = list[PIL.Image.Image]


def test_the_reward_is_that_of_plain_formulas_over_the_original_names(
    sources: dict[str, str], images: Images, prompts: list[str]
) -> None:
    tokenizer = BertTokenizer.from_pretrained(sources["imagereward"])
    tokens = tokenizer(prompts, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
    rewards = image_reward(
        image_reward_tensors(seed=0),
        torch.from_numpy(Preprocess(32)(images)),
        tokens["input_ids"],
        tokens["attention_mask"],
    )
    expected = (rewards.numpy() - 0.16717362830052426) / 1.0333394966054072
    scorer = build_scorer("imagereward", source=sources["imagereward"], device="cpu", batch_size=4)
    np.testing.assert_allclose(scorer.score(images, prompts), expected, rtol=1e-4, atol=1e-5)
    assert scorer.scale == pytest.approx(1 / 1.0333394966054072)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"blip.text_encoder.encoder.layer.1.crossattention.self.query.weight": None}, "crossattention.self.query"),
        ({"blip.visual_encoder.blocks.0.attn.qkv.bias": None}, r"self_attn\.qkv\.bias is missing"),
        ({"blip.visual_encoder.blocks.0.gate.weight": torch.zeros(1)}, r"gate\.weight is not a part"),
        ({"mlp.layers.7.bias": torch.zeros(2)}, r"layers\.7\.bias is \(2,\), expected \(1,\)"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(
    change: dict[str, torch.Tensor | None], words: str, sources: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(sources["imagereward"], folder)
    tensors = {**image_reward_tensors(seed=0), **change}
    save_file({name: value for name, value in tensors.items() if value is not None}, folder / "ImageReward.safetensors")
    with pytest.raises(ModelUnavailableError, match=words):
        build_scorer("imagereward", source=str(folder), device="cpu", batch_size=1)


def test_a_file_without_blip_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "ImageReward.safetensors")
    with pytest.raises(ModelUnavailableError, match=r"holds no blip\.visual_encoder"):
        build_scorer("imagereward", source=str(tmp_path), device="cpu", batch_size=1)

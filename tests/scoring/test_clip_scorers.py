"""CLIP score, PickScore, HPSv2.1 and the aesthetic predictor compute what their sources say."""

import json
import math
import shutil
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import BertTokenizer, CLIPModel, CLIPTokenizer

from dmpo_app.errors import ModelUnavailableError
from dmpo_app.scoring.networks import Preprocess
from dmpo_app.scoring.registry import build_scorer
from tests.scoring.plain_networks import linear_head, open_clip_cosine
from tests.scoring.tiny_scorers import MAX_TOKENS, OPEN_CLIP, head_tensors, open_clip_tensors

Images = list[PIL.Image.Image]


def score(name: str, source: str | Path, images: Images, prompts: list[str]) -> np.ndarray:
    return build_scorer(name, source=str(source), device="cpu", batch_size=4).score(images, prompts)


def pixels_of(images: Images, *, size: int = 32) -> torch.Tensor:
    return torch.from_numpy(Preprocess(size)(images))


def tokens_of(folder: str, prompts: list[str]) -> torch.Tensor:
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokens = tokenizer(prompts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    assert isinstance(tokens["input_ids"], torch.Tensor)
    return tokens["input_ids"]


def test_pickscore_is_the_models_own_logit_of_the_image_and_its_prompt(
    sources: dict[str, str], images: Images, prompts: list[str]
) -> None:
    model = CLIPModel.from_pretrained(sources["pickscore"]).eval()
    with torch.no_grad():
        tokens = tokens_of(sources["pickscore"], prompts)
        logits = model(input_ids=tokens, pixel_values=pixels_of(images)).logits_per_image
    expected = logits.diagonal().numpy()
    np.testing.assert_allclose(score("pickscore", sources["pickscore"], images, prompts), expected, rtol=1e-4)
    assert np.ptp(expected) > 1


def test_one_unit_of_log_odds_is_the_same_change_of_the_cosine_whatever_the_scorer_multiplies_it_with(
    sources: dict[str, str], images: Images, prompts: list[str]
) -> None:
    picked = build_scorer("pickscore", source=sources["clip"], device="cpu", batch_size=4)
    clip = build_scorer("clip", source=sources["clip"], device="cpu", batch_size=4)
    np.testing.assert_allclose(
        clip.score(images, prompts) / clip.scale, picked.score(images, prompts) / picked.scale, rtol=1e-5
    )
    assert clip.scale == pytest.approx(100 / math.exp(4.6), rel=1e-5)


def test_hpsv2_from_open_clips_names_is_the_cosine_of_plain_formulas(
    sources: dict[str, str], images: Images, prompts: list[str]
) -> None:
    tensors = open_clip_tensors(seed=0)
    expected = open_clip_cosine(
        tensors, pixels_of(images), tokens_of(sources["hpsv2"], prompts), image_heads=4, text_heads=4
    )
    scorer = build_scorer("hpsv2", source=sources["hpsv2"], device="cpu", batch_size=4)
    np.testing.assert_allclose(scorer.score(images, prompts), expected.numpy(), rtol=1e-4, atol=1e-6)
    assert scorer.scale == pytest.approx(math.exp(-4.2), rel=1e-5)


def test_hpsv2_reads_half_precision_and_old_checkpoints_with_their_mask(
    sources: dict[str, str], tmp_path: Path, images: Images, prompts: list[str]
) -> None:
    folder = tmp_path / "half"
    shutil.copytree(sources["hpsv2"], folder)
    halves = {name: value.half() for name, value in open_clip_tensors(seed=0).items()}
    save_file({**halves, "attn_mask": torch.zeros(MAX_TOKENS, MAX_TOKENS)}, folder / "hps.safetensors")
    np.testing.assert_allclose(
        score("hpsv2", folder, images, prompts), score("hpsv2", sources["hpsv2"], images, prompts), atol=0.01
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"visual.proj": None}, "visual_projection.weight is missing"),
        ({"text_decoder.weight": torch.zeros(1)}, "text_decoder.weight, which open_clip's CLIP does not have"),
        ({"transformer.resblocks.0.attn.rotary.weight": torch.zeros(1)}, "attn.rotary.weight"),
        ({"visual.ln_pre.bias": torch.zeros(7)}, r"pre_layrnorm.bias is \(7,\), expected \(48,\)"),
    ],
)
def test_hpsv2_weights_of_another_network_are_refused_by_name(
    change: dict[str, torch.Tensor | None], words: str, sources: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(sources["hpsv2"], folder)
    tensors = {**open_clip_tensors(seed=0), **change}
    save_file({name: value for name, value in tensors.items() if value is not None}, folder / "hps.safetensors")
    with pytest.raises(ModelUnavailableError, match=words):
        build_scorer("hpsv2", source=str(folder), device="cpu", batch_size=1)


def test_without_a_configuration_hpsv2_expects_the_published_size(sources: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(sources["hpsv2"], folder)
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(ModelUnavailableError, match=r"layers\.2\.|expected \(1280"):
        build_scorer("hpsv2", source=str(folder / "hps.safetensors"), device="cpu", batch_size=1)
    assert OPEN_CLIP["vision_cfg"]["layers"] == 2


def test_the_aesthetic_rating_is_linear_in_the_unit_vector_of_the_image_and_ignores_the_prompt(
    sources: dict[str, str], images: Images, prompts: list[str]
) -> None:
    model = CLIPModel.from_pretrained(sources["aesthetic"]).eval()
    with torch.no_grad():
        embeds = model.visual_projection(model.vision_model(pixel_values=pixels_of(images)).pooler_output)
    expected = linear_head(head_tensors(20, seed=0), functional.normalize(embeds, dim=-1)).numpy()
    ratings = score("aesthetic", sources["aesthetic"], images, prompts)
    np.testing.assert_allclose(ratings, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(ratings, score("aesthetic", sources["aesthetic"], images, prompts[::-1]))


def test_an_aesthetic_head_for_another_clip_is_refused(sources: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(sources["aesthetic"], folder)
    save_file(head_tensors(768, seed=0), folder / "sac+logos+ava1-l14-linearMSE.safetensors")
    with pytest.raises(ModelUnavailableError, match="takes 768 features and the model gives 20"):
        build_scorer("aesthetic", source=str(folder), device="cpu", batch_size=1)


def test_a_weight_that_is_not_in_the_files_is_named_and_not_drawn_at_random(
    sources: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "incomplete"
    shutil.copytree(sources["clip"], folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelUnavailableError, match=r"visual_projection\.weight is not in its weights"):
        build_scorer("clip", source=str(folder), device="cpu", batch_size=1)


def test_a_damaged_file_is_said_to_be_one(sources: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(sources["clip"], folder)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ModelUnavailableError, match="could not be loaded"):
        build_scorer("clip", source=str(folder), device="cpu", batch_size=1)


def test_a_folder_with_a_pickle_file_only_is_refused_with_the_way_out(sources: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(sources["clip"], folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        ModelUnavailableError, match=r"no model\.safetensors.*CLIPModel\.from_pretrained.*save_pretrained"
    ):
        build_scorer("clip", source=str(folder), device="cpu", batch_size=1)


def test_a_tokenizer_of_another_model_is_refused(sources: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(sources["clip"], folder)
    for path in [*folder.glob("*token*"), *folder.glob("vocab*")]:
        path.unlink()
    BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}).save_pretrained(folder)
    with pytest.raises(ModelUnavailableError):
        build_scorer("clip", source=str(folder), device="cpu", batch_size=1)


def test_without_a_tokenizer_a_clip_folder_is_incomplete(sources: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "mute"
    shutil.copytree(sources["clip"], folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelUnavailableError, match="holds no tokenizer"):
        build_scorer("clip", source=str(folder), device="cpu", batch_size=1)


def test_pickscore_without_a_tokenizer_asks_for_laions_and_says_so_when_offline(
    sources: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mute"
    shutil.copytree(sources["pickscore"], folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelUnavailableError, match=r"laion/CLIP-ViT-H-14.*the scorer's source"):
        build_scorer("pickscore", source=str(folder), device="cpu", batch_size=1)


def test_a_model_in_the_hubs_cache_needs_no_network(
    sources: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: Images, prompts: list[str]
) -> None:
    repository = tmp_path / "models--somebody--some-clip"
    shutil.copytree(sources["clip"], repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    cached = build_scorer("clip", source="somebody/some-clip", device="cpu", batch_size=4)
    local = build_scorer("clip", source=sources["clip"], device="cpu", batch_size=4)
    assert cached.identity == local.identity
    np.testing.assert_array_equal(cached.score(images, prompts), local.score(images, prompts))
    with pytest.raises(ModelUnavailableError, match="somebody/another is not on this machine"):
        build_scorer("clip", source="somebody/another", device="cpu", batch_size=4)


def test_a_mean_and_deviation_that_come_with_the_model_are_used(
    sources: dict[str, str], tmp_path: Path, images: Images, prompts: list[str]
) -> None:
    folder = tmp_path / "centred"
    shutil.copytree(sources["clip"], folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    before = build_scorer("clip", source=sources["clip"], device="cpu", batch_size=4)
    after = build_scorer("clip", source=str(folder), device="cpu", batch_size=4)
    assert after.identity != before.identity
    assert not np.allclose(after.score(images, prompts), before.score(images, prompts))


def test_a_source_that_is_nowhere_is_named() -> None:
    with pytest.raises(ModelUnavailableError, match=r"/does/not/exist does not exist"):
        build_scorer("clip", source="/does/not/exist", device="cpu", batch_size=1)


def test_of_several_safetensors_files_one_must_be_named(sources: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "two"
    shutil.copytree(sources["hpsv2"], folder)
    shutil.copyfile(folder / "hps.safetensors", folder / "hps-2.safetensors")
    with pytest.raises(ModelUnavailableError, match=r"hps-2\.safetensors, hps\.safetensors.*name the one"):
        build_scorer("hpsv2", source=str(folder), device="cpu", batch_size=1)
    build_scorer("hpsv2", source=str(folder / "hps-2.safetensors"), device="cpu", batch_size=1)

"""LoRA files of others: an image with one is that of plain diffusers, and what does not fit is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from dmpo_app.diffusion.adapter_files import AdapterFormat, AdapterWeights, export_adapter, write_adapter
from dmpo_app.diffusion.live_model import LiveModel, Shot
from dmpo_app.errors import AdapterCorruptError, AdapterMismatchError
from dmpo_app.settings import RenderSettings
from tests.adapters import SPEC, random_adapter
from tests.tolerance import assert_images_agree, images_agree

SETTINGS = RenderSettings(num_steps=2, guidance=3.0, device="cpu", dtype="float32")


@pytest.fixture
def model(tiny_model: Path) -> LiveModel:
    return LiveModel.load(str(tiny_model), SETTINGS, SPEC)


@pytest.fixture
def adapter(model: LiveModel) -> AdapterWeights:
    return random_adapter(model._pipeline.unet, 1)


@pytest.fixture
def kohya_file(adapter: AdapterWeights, tmp_path: Path) -> Path:
    return export(adapter, "kohya", tmp_path)


def export(adapter: AdapterWeights, file_format: AdapterFormat, folder: Path) -> Path:
    staged = write_adapter(folder, 1, adapter.tensors, adapter.spec, {})
    path = folder / f"{file_format}.safetensors"
    path.write_bytes(export_adapter(folder / staged.folder_name, file_format))
    return path


@pytest.mark.parametrize("file_format", ["diffusers", "kohya"])
def test_an_adapter_comes_back_from_either_naming_as_it_went(
    model: LiveModel, adapter: AdapterWeights, file_format: AdapterFormat, tmp_path: Path
) -> None:
    again = model.read_foreign_lora(export(adapter, file_format, tmp_path))
    assert (again.spec.rank, again.spec.scaling) == (SPEC.rank, SPEC.scaling)
    assert again.tensors.keys() == adapter.tensors.keys()
    assert all(torch.equal(again.tensors[key], adapter.tensors[key]) for key in adapter.tensors)


def test_layers_of_several_ranks_draw_what_plain_diffusers_draws(
    model: LiveModel, kohya_file: Path, tiny_model: Path
) -> None:
    tensors = load_file(kohya_file)
    for key in sorted(key for key in tensors if key.endswith("lora_down.weight"))[::2]:
        tensors[key] = tensors[key][:2].contiguous()
        up = key.replace("lora_down", "lora_up")
        tensors[up] = tensors[up][:, :2].contiguous()
    save_file(tensors, kohya_file)
    adapter = model.read_foreign_lora(kohya_file)
    assert adapter.spec.rank == SPEC.rank
    (base,) = model.render([Shot("a red fox", 5, 0)])
    model.swap(1, adapter)
    (adapted,) = model.render([Shot("a red fox", 5, 1)])
    stock = StableDiffusionPipeline.from_pretrained(tiny_model, use_safetensors=True)
    stock.set_progress_bar_config(disable=True)
    stock.load_lora_weights(str(kohya_file.parent), weight_name=kohya_file.name)
    generator = torch.Generator().manual_seed(5)
    expected = stock("a red fox", num_inference_steps=2, guidance_scale=3.0, generator=generator).images
    assert_images_agree([adapted.image], expected)
    assert not images_agree([adapted.image], [base.image])


def with_text_encoder(tensors: dict[str, Tensor]) -> None:
    tensors["lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight"] = torch.zeros(2, 4)


def with_a_magnitude(tensors: dict[str, Tensor]) -> None:
    tensors["lora_unet_mid_block_attentions_0_proj_in.dora_scale"] = torch.ones(4)


def with_nan(tensors: dict[str, Tensor]) -> None:
    next(value for key, value in tensors.items() if key.endswith("lora_up.weight"))[0, 0] = torch.nan


def without_layers(tensors: dict[str, Tensor]) -> None:
    tensors.clear()
    tensors["weight"] = torch.zeros(1)


def of_another_model(tensors: dict[str, Tensor]) -> None:
    tensors["lora_unet_down_blocks_9_attentions_0_proj_in.lora_down.weight"] = torch.ones(2, 4)
    tensors["lora_unet_down_blocks_9_attentions_0_proj_in.lora_up.weight"] = torch.ones(4, 2)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (with_text_encoder, AdapterMismatchError, "text encoder"),
        (with_a_magnitude, AdapterMismatchError, "DoRA"),
        (with_nan, AdapterCorruptError, "not finite"),
        (without_layers, AdapterCorruptError, "no LoRA layers"),
        (of_another_model, AdapterMismatchError, "another family"),
    ],
)
def test_what_is_no_lora_of_this_model_is_refused_and_the_model_goes_on(
    model: LiveModel,
    adapter: AdapterWeights,
    kohya_file: Path,
    change: Callable[[dict[str, Tensor]], None],
    kind: type[Exception],
    words: str,
) -> None:
    model.swap(1, adapter)
    (before,) = model.render([Shot("a red fox", 5, 1)])
    tensors = load_file(kohya_file)
    change(tensors)
    save_file(tensors, kohya_file)
    with pytest.raises(kind, match=words):
        model.read_foreign_lora(kohya_file)
    assert model.version == 0
    model.swap(1, adapter)
    (after,) = model.render([Shot("a red fox", 5, 1)])
    assert before.image.tobytes() == after.image.tobytes()


def test_a_file_that_is_cut_off_is_refused(model: LiveModel, kohya_file: Path) -> None:
    kohya_file.write_bytes(kohya_file.read_bytes()[:-10])
    with pytest.raises(AdapterCorruptError, match="no valid safetensors"):
        model.read_foreign_lora(kohya_file)

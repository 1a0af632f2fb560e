"""Every family is rendered as its stock pipeline renders it, up to rounding, with and without an adapter."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL.Image import Image
from torch import Tensor

from dmpo_app.diffusion.adapter_files import AdapterWeights, export_adapter, write_adapter
from dmpo_app.diffusion.families.registry import get_family
from dmpo_app.diffusion.live_model import LiveModel, Sample, Shot
from dmpo_app.diffusion.loading import load_pipeline
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.errors import AdapterMismatchError, BadInputError, SetupError
from dmpo_app.settings import RenderSettings
from tests.adapters import random_adapter
from tests.tiny_models.cases import CASES, NUM_STEPS, Case, one_a_family
from tests.tiny_models.sd3 import make_tiny_sd3
from tests.tiny_models.sdxl import make_tiny_sdxl
from tests.tolerance import assert_images_agree, assert_latents_agree, images_agree

PROMPTS = ("a red fox at night", "two blue whales")
SEEDS = (1, 2)


def settings_of(case: Case) -> RenderSettings:
    return RenderSettings(num_steps=NUM_STEPS, resolution=case.resolution, device="cpu", dtype="float32")


def spec_of(case: Case, preset: str = "wide") -> LoraSpec:
    family = get_family(case.family)
    return LoraSpec(4, 6.0, family.targets[preset], family.component)


@pytest.fixture
def model(case: Case, folder: Path) -> LiveModel:
    return LiveModel.load(str(folder), settings_of(case), spec_of(case))


def adapter(model: LiveModel, seed: int, spec: LoraSpec) -> AdapterWeights:
    return random_adapter(model._denoiser, seed, spec)


def shots(version: int) -> list[Shot]:
    return [Shot(prompt, seed, version) for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]


def images_of(samples: list[Sample]) -> list[Image]:
    return [sample.image for sample in samples]


def latents(model: LiveModel, *versions: int) -> list[Tensor]:
    return [sample.latents for sample in model.render([Shot(PROMPTS[0], 5, version) for version in versions])]


def test_images_are_the_stock_pipelines(case: Case, folder: Path, model: LiveModel) -> None:
    made = model.render(shots(0))
    stock = case.stock_images(case.stock(folder), PROMPTS, SEEDS)
    assert_images_agree(images_of(made), stock)
    assert not images_agree([made[0].image], [made[1].image])
    assert made[0].latents.shape == case.latent_shape
    assert made[0].provenance.guidance == case.guidance


def test_without_guidance_they_are_too(case: Case, folder: Path, model: LiveModel) -> None:
    made = model.render(shots(0), guidance=1.0)
    stock = case.stock_images(case.stock(folder), PROMPTS, SEEDS, guidance=1.0)
    assert_images_agree(images_of(made), stock)
    heeds_guidance = case.name != "flux-schnell"
    assert images_agree(images_of(made), images_of(model.render(shots(0)))) != heeds_guidance


@one_a_family
def test_prompts_are_encoded_as_the_stock_pipeline_does(case: Case, folder: Path) -> None:
    family, pipeline, stock = get_family(case.family), load_pipeline(str(folder), device="cpu"), case.stock(folder)
    for prompt in PROMPTS:
        expected = case.stock_encoding(stock, prompt)
        ours = family.encode_prompt(pipeline, prompt)
        assert ours.keys() == {name for name in expected if not name.startswith("negative_")}
        for name in ours:
            assert_latents_agree(ours[name], expected[name][0])
        unconditional = family.unconditional(pipeline) or {}
        assert {f"negative_{name}" for name in unconditional} == {n for n in expected if n.startswith("negative_")}
        for name in unconditional:
            assert_latents_agree(unconditional[name], expected[f"negative_{name}"][0])


def test_an_xl_model_that_does_not_zero_the_empty_prompt_encodes_it(tmp_path: Path) -> None:
    pipeline = load_pipeline(str(make_tiny_sdxl(tmp_path / "xl", zeros_for_empty=False)), device="cpu")
    _, negative, _, pooled = pipeline.encode_prompt(PROMPTS[0])
    ours = get_family("stable_diffusion_xl").unconditional(pipeline)
    assert ours is not None
    assert_latents_agree(ours["prompt_embeds"], negative[0])
    assert_latents_agree(ours["pooled_prompt_embeds"], pooled[0])
    assert ours["prompt_embeds"].any()


def test_stable_diffusion_3_works_without_its_t5_encoder(tmp_path: Path) -> None:
    case, folder = CASES["sd3"], make_tiny_sd3(tmp_path / "sd3", with_t5=False)
    made = LiveModel.load(str(folder), settings_of(case), spec_of(case)).render(shots(0))
    stock = case.stock_images(case.stock(folder, text_encoder_3=None, tokenizer_3=None), PROMPTS, SEEDS)
    assert_images_agree(images_of(made), stock)


@one_a_family
def test_swapping_to_another_version_and_back_is_bitwise_exact(case: Case, model: LiveModel) -> None:
    first, second = adapter(model, 1, spec_of(case)), adapter(model, 2, spec_of(case, "attention"))
    base = latents(model, 0, 0)
    model.swap(1, first)
    before = latents(model, 1, 1)
    model.swap(2, second)
    between = latents(model, 2, 2)
    model.swap(1, first)
    after = latents(model, 1, 1)
    model.swap(0, None)
    assert torch.equal(before[0], after[0])
    assert torch.equal(latents(model, 0, 0)[0], base[0])
    assert not torch.equal(before[0], between[0])
    assert not torch.equal(base[0], between[0])


@one_a_family
@pytest.mark.parametrize("preset", ["attention", "wide"])
def test_plain_diffusers_loads_a_published_adapter_and_makes_the_same_image(
    tmp_path: Path, case: Case, folder: Path, model: LiveModel, preset: str
) -> None:
    spec = spec_of(case, preset)
    weights = adapter(model, 1, spec)
    staged = write_adapter(tmp_path, 1, weights.tensors, spec, {})
    stock = case.stock(folder)
    plain = case.stock_images(stock, PROMPTS, SEEDS)
    stock.load_lora_weights(tmp_path / staged.folder_name)
    expected = case.stock_images(stock, PROMPTS, SEEDS)
    model.swap(1, weights)
    assert_images_agree(images_of(model.render(shots(1))), expected)
    assert not images_agree(expected, plain)


@one_a_family
def test_base_and_adapted_images_of_one_batch_are_each_exactly_their_own(case: Case, model: LiveModel) -> None:
    base = latents(model, 0, 0)
    model.swap(1, adapter(model, 1, spec_of(case)))
    adapted = latents(model, 1, 1)
    mixed = latents(model, 0, 1)
    assert torch.equal(mixed[0], base[0])
    assert torch.equal(mixed[1], adapted[1])


@one_a_family
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_models_render_both_sides(case: Case, folder: Path, dtype: str) -> None:
    model = LiveModel.load(str(folder), settings_of(case).model_copy(update={"dtype": dtype}), spec_of(case))
    model.swap(1, adapter(model, 1, spec_of(case)))
    base, adapted = latents(model, 0, 1)
    assert str(base.dtype) == str(adapted.dtype) == f"torch.{dtype}"
    assert not torch.equal(base, adapted)


@one_a_family
def test_an_adapter_of_another_kind_of_denoiser_is_refused(case: Case, model: LiveModel) -> None:
    spec = spec_of(case)
    other = "unet" if spec.component == "transformer" else "transformer"
    tensors = adapter(model, 1, spec).tensors
    foreign = AdapterWeights(LoraSpec(4, 6.0, spec.target_modules, other), tensors)
    with pytest.raises(AdapterMismatchError, match=f"one of a {other}"):
        model.swap(1, foreign)
    assert model.version == 0


@one_a_family
def test_kohyas_naming_gives_plain_diffusers_the_same_image_where_it_is_defined(
    tmp_path: Path, case: Case, folder: Path, model: LiveModel
) -> None:
    spec = spec_of(case)
    weights = adapter(model, 1, spec)
    published = tmp_path / write_adapter(tmp_path, 1, weights.tensors, spec, {}).folder_name
    if spec.component != "unet":
        with pytest.raises(BadInputError, match="--format diffusers"):
            export_adapter(published, "kohya")
        return
    (tmp_path / "kohya.safetensors").write_bytes(export_adapter(published, "kohya"))
    stock = case.stock(folder)
    stock.load_lora_weights(tmp_path, weight_name="kohya.safetensors")
    model.swap(1, weights)
    assert_images_agree(images_of(model.render(shots(1))), case.stock_images(stock, PROMPTS, SEEDS))


def test_a_sampler_or_a_size_that_does_not_go_with_the_model_is_refused_with_what_does(
    case_folder: Callable[[Case], Path],
) -> None:
    for name, sampler in (("flux", "ddim"), ("sdxl", "flow-euler")):
        case = CASES[name]
        settings = settings_of(case).model_copy(update={"sampler": sampler})
        with pytest.raises(SetupError, match=f"{sampler}.*{case.family}.*auto or one of"):
            LiveModel.load(str(case_folder(case)), settings, spec_of(case))
    case = CASES["flux"]
    with pytest.raises(SetupError, match="68 is not a multiple of this model's 8 pixels"):
        LiveModel.load(str(case_folder(case)), settings_of(case).model_copy(update={"resolution": 68}), spec_of(case))


def test_a_model_may_say_itself_how_it_is_sampled(tmp_path: Path) -> None:
    case = CASES["sd1"]
    folder = case.make(tmp_path / "model")
    (folder / "sampling.json").write_text(json.dumps({"num_steps": 2, "guidance": 1.5}))
    model = LiveModel.load(str(folder), RenderSettings(device="cpu"), spec_of(case))
    made = model.render([Shot("a fox", 1, 0)])[0].provenance
    assert (made.num_steps, made.guidance, made.sampler) == (2, 1.5, "ddim")

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL.Image import Image
from torch import Tensor

from dmpo_app.diffusion.adapter_files import AdapterWeights, write_adapter
from dmpo_app.diffusion.families.components import UNET_ATTENTION as ATTENTION_LAYERS
from dmpo_app.diffusion.families.components import UNET_WIDE
from dmpo_app.diffusion.live_model import LiveModel, RenderInterrupted, Sample, Shot
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.errors import AdapterMismatchError, SetupError, StudioError
from dmpo_app.settings import RenderSettings
from tests.adapters import SPEC, random_adapter
from tests.model_fixtures import NUM_THREADS
from tests.tiny_pipeline import MAX_TOKENS, make_tiny_pipeline
from tests.tolerance import assert_images_agree, assert_latents_agree, images_agree

PROMPT = "a red fox at night"
SETTINGS = RenderSettings(num_steps=3, guidance=3.0, device="cpu", dtype="float32")
UNET_ATTENTION = LoraSpec(rank=2, lora_alpha=5.0, target_modules=ATTENTION_LAYERS)


@pytest.fixture
def model(tiny_model: Path) -> LiveModel:
    return LiveModel.load(str(tiny_model), SETTINGS, SPEC)


@pytest.fixture
def stock(tiny_model: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def adapter(model: LiveModel, seed: int, spec: LoraSpec = SPEC) -> AdapterWeights:
    return random_adapter(model._pipeline.unet, seed, spec)


def latents(model: LiveModel, *versions: int, strength: float = 1.0) -> list[Tensor]:
    return [sample.latents for sample in model.render([Shot(PROMPT, 5, version, strength) for version in versions])]


def stock_images(
    pipeline: StableDiffusionPipeline, seeds: list[int], guidance: float = 3.0, num_steps: int = 3
) -> list[Image]:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    result = pipeline(
        [PROMPT] * len(seeds), num_inference_steps=num_steps, guidance_scale=guidance, generator=generators
    )
    images: list[Image] = result.images
    return images


def images_of(samples: list[Sample]) -> list[Image]:
    return [sample.image for sample in samples]


def pixels(samples: list[Sample]) -> list[bytes]:
    return [image.tobytes() for image in images_of(samples)]


@pytest.mark.parametrize("guidance", [3.0, 1.0])
@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_images_are_the_stock_pipelines(
    tiny_model: Path, stock: StableDiffusionPipeline, sampler: str, guidance: float
) -> None:
    model = LiveModel.load(
        str(tiny_model), SETTINGS.model_copy(update={"sampler": sampler, "guidance": guidance}), SPEC
    )
    if sampler == "dpm++":
        stock.scheduler = DPMSolverMultistepScheduler.from_config(stock.scheduler.config)
    images = images_of(model.render([Shot(PROMPT, seed, 0) for seed in (1, 2)]))
    assert_images_agree(images, stock_images(stock, [1, 2], guidance))
    assert not images_agree(images[:1], images[1:])


def test_a_model_that_predicts_velocity_is_rendered_as_the_stock_pipeline_does(tmp_path: Path) -> None:
    folder = make_tiny_pipeline(tmp_path / "v", prediction_type="v_prediction")
    stock = StableDiffusionPipeline.from_pretrained(folder)
    stock.set_progress_bar_config(disable=True)
    model = LiveModel.load(str(folder), SETTINGS, SPEC)
    assert_images_agree(images_of(model.render([Shot(PROMPT, 1, 0)])), stock_images(stock, [1]))


@pytest.mark.parametrize("spec", [SPEC, UNET_ATTENTION])
def test_plain_diffusers_loads_a_published_adapter_and_makes_the_same_image(
    tmp_path: Path, model: LiveModel, stock: StableDiffusionPipeline, spec: LoraSpec
) -> None:
    base = images_of(model.render([Shot(PROMPT, 1, 0), Shot(PROMPT, 2, 0)]))
    weights = adapter(model, 1, spec)
    staged = write_adapter(tmp_path, 1, weights.tensors, spec, {})
    stock.load_lora_weights(tmp_path / staged.folder_name)
    model.swap(1, weights)
    adapted = images_of(model.render([Shot(PROMPT, 1, 1), Shot(PROMPT, 2, 1)]))
    assert_images_agree(adapted, stock_images(stock, [1, 2]))
    assert not images_agree(adapted, base)


def test_swapping_to_another_version_and_back_is_bitwise_exact(model: LiveModel) -> None:
    first, second = adapter(model, 1), adapter(model, 2)
    model.swap(1, first)
    before = latents(model, 1, 1)
    model.swap(2, second)
    between = latents(model, 2, 2)
    model.swap(1, first)
    after = latents(model, 1, 1)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[0], between[0])


def test_base_and_adapted_images_of_one_batch_are_each_exactly_their_own(model: LiveModel) -> None:
    base = latents(model, 0, 0)
    model.swap(1, adapter(model, 1))
    adapted = latents(model, 1, 1)
    mixed = model.render([Shot(PROMPT, 5, 0), Shot(PROMPT, 5, 1)])
    assert torch.equal(mixed[0].latents, base[0])
    assert torch.equal(mixed[1].latents, adapted[1])
    assert not torch.equal(mixed[0].latents, mixed[1].latents)
    assert [sample.provenance.adapter_version for sample in mixed] == [0, 1]


def test_strength_zero_is_exactly_the_base_and_strengths_in_between_lie_in_between(model: LiveModel) -> None:
    base = latents(model, 0)[0]
    model.swap(1, adapter(model, 1))
    assert torch.equal(latents(model, 1, strength=0.0)[0], base)
    distances = [float((latents(model, 1, strength=s)[0] - base).norm()) for s in (0.1, 0.5, 1.0, 1.5)]
    assert distances == sorted(distances)
    assert distances[0] > 0


def test_an_image_depends_on_its_own_seed_and_not_on_its_neighbours(model: LiveModel) -> None:
    first = model.render([Shot(PROMPT, 1, 0), Shot(PROMPT, 2, 0)])
    second = model.render([Shot("another prompt", 9, 0), Shot(PROMPT, 2, 0)])
    third = model.render([Shot("another prompt", 9, 0), Shot(PROMPT, 1, 0)])
    assert torch.equal(first[1].latents, second[1].latents)
    assert_latents_agree(first[0].latents, third[1].latents)  # another place in the batch, another part of a product


def test_the_same_request_gives_the_same_bytes(model: LiveModel, tiny_model: Path) -> None:
    again = LiveModel.load(str(tiny_model), SETTINGS, SPEC)
    shots = [Shot(PROMPT, 1, 0), Shot(PROMPT, 2, 0)]
    assert pixels(model.render(shots)) == pixels(model.render(shots)) == pixels(again.render(shots))


@pytest.mark.parametrize("other", [UNET_ATTENTION, LoraSpec(7, 3.0, UNET_WIDE), LoraSpec(4, 1.0, UNET_WIDE)])
def test_a_version_of_another_shape_is_shown_as_plain_diffusers_shows_it_and_the_first_comes_back(
    tmp_path: Path, model: LiveModel, stock: StableDiffusionPipeline, other: LoraSpec
) -> None:
    first, second = adapter(model, 1), adapter(model, 2, other)
    model.swap(1, first)
    before = latents(model, 1)[0]
    model.swap(2, second)
    staged = write_adapter(tmp_path, 2, second.tensors, other, {})
    stock.load_lora_weights(tmp_path / staged.folder_name)
    assert_images_agree(images_of(model.render([Shot(PROMPT, 1, 2)])), stock_images(stock, [1]))
    model.swap(1, first)
    assert torch.equal(latents(model, 1)[0], before)


def bad_adapters(good: AdapterWeights) -> Iterator[AdapterWeights]:
    last = list(good.tensors)[-1]
    yield AdapterWeights(good.spec, {k: v for k, v in good.tensors.items() if k != last})
    yield AdapterWeights(good.spec, {**good.tensors, last: torch.zeros(1, 1)})
    yield AdapterWeights(LoraSpec(8, 8.0, UNET_WIDE), good.tensors)
    yield AdapterWeights(UNET_ATTENTION, good.tensors)


def test_an_adapter_that_does_not_fit_leaves_the_live_model_as_it_was(model: LiveModel) -> None:
    good = adapter(model, 1)
    model.swap(1, good)
    before = latents(model, 0, 1)
    for bad in bad_adapters(adapter(model, 2)):
        with pytest.raises(AdapterMismatchError):
            model.swap(2, bad)
        assert model.version == 1
        after = latents(model, 0, 1)
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_weight_beyond_float16_is_refused_instead_of_becoming_infinite(tiny_model: Path) -> None:
    half = LiveModel.load(str(tiny_model), SETTINGS.model_copy(update={"dtype": "float16"}), SPEC)
    huge = adapter(half, 1)
    key = next(iter(huge.tensors))
    with pytest.raises(AdapterMismatchError, match="float16"):
        half.swap(1, AdapterWeights(SPEC, {**huge.tensors, key: torch.full_like(huge.tensors[key], 1e6)}))
    assert half.version == 0


def test_half_precision_models_render_both_sides(tiny_model: Path) -> None:
    model = LiveModel.load(str(tiny_model), SETTINGS.model_copy(update={"dtype": "bfloat16"}), SPEC)
    model.swap(1, adapter(model, 1))
    base, adapted = model.render([Shot(PROMPT, 1, 0), Shot(PROMPT, 1, 1)])
    assert base.latents.dtype is adapted.latents.dtype is torch.bfloat16
    assert not torch.equal(base.latents, adapted.latents)
    assert base.provenance.dtype == "bfloat16"


def test_a_version_the_model_does_not_hold_cannot_be_asked_for(model: LiveModel) -> None:
    with pytest.raises(ValueError, match="version 4"):
        model.render([Shot(PROMPT, 1, 4)])
    with pytest.raises(ValueError, match="strength"):
        model.render([Shot(PROMPT, 1, 0, strength=1.6)])


def test_rendering_stops_between_two_steps_and_works_afterwards(model: LiveModel) -> None:
    expected = latents(model, 0)[0]
    model.swap(1, adapter(model, 1))
    adapted = latents(model, 0, 1)
    calls: list[bool] = []

    def stop_at_second() -> bool:
        calls.append(True)
        return len(calls) == 2

    with pytest.raises(RenderInterrupted):
        model.render([Shot(PROMPT, 5, 0), Shot(PROMPT, 5, 1)], should_stop=stop_at_second)
    assert len(calls) == 2
    assert torch.equal(latents(model, 0)[0], expected)
    assert all(torch.equal(a, b) for a, b in zip(latents(model, 0, 1), adapted, strict=True))


def test_provenance_says_how_an_image_was_made(model: LiveModel) -> None:
    model.swap(3, adapter(model, 1))
    base, adapted = (s.provenance for s in model.render([Shot(PROMPT, 1, 0, 0.7), Shot(PROMPT, 1, 3, 0.7)], guidance=2))
    assert (base.adapter_version, base.strength) == (0, 0.0)
    assert (adapted.adapter_version, adapted.strength) == (3, 0.7)
    assert (adapted.sampler, adapted.num_steps, adapted.guidance, adapted.batch_size) == ("ddim", 3, 2, 2)
    assert (adapted.num_threads, adapted.device, adapted.dtype) == (NUM_THREADS, "cpu", "float32")


def test_a_prompt_that_is_too_long_is_cut(model: LiveModel) -> None:
    long = model.conditioning("fox " * 40)["prompt_embeds"]
    assert long.shape == (MAX_TOKENS, 16)
    assert torch.equal(long, model.conditioning("fox " * 60)["prompt_embeds"])


def test_another_resolution_gives_images_of_that_size_or_a_clear_refusal(tiny_model: Path) -> None:
    larger = LiveModel.load(str(tiny_model), SETTINGS.model_copy(update={"resolution": 64}), SPEC)
    assert larger.render([Shot(PROMPT, 1, 0)])[0].image.size == (64, 64)
    with pytest.raises(SetupError, match="66"):
        LiveModel.load(str(tiny_model), SETTINGS.model_copy(update={"resolution": 66}), SPEC)


def test_values_that_are_not_finite_are_reported_and_not_shown(model: LiveModel) -> None:
    model._pipeline.unet.conv_out.bias.data[0] = float("inf")
    with pytest.raises(StudioError, match="not finite"):
        model.render([Shot(PROMPT, 1, 0)])


def test_images_that_the_models_own_safety_checker_flags_come_out_black(tmp_path: Path) -> None:
    folder = make_tiny_pipeline(tmp_path / "checked", safety_checker="flags everything")
    sample = LiveModel.load(str(folder), SETTINGS, SPEC).render([Shot(PROMPT, 1, 0)])[0]
    assert sample.flagged
    assert sample.image.getextrema() == ((0, 0),) * 3


def test_a_swap_takes_less_than_five_milliseconds(model: LiveModel) -> None:
    """Of the processor: on the clock, others that are busy would be measured too."""
    versions = [adapter(model, 1), adapter(model, 2)]
    seconds = []
    for count in range(40):
        start = time.thread_time()
        model.swap(1 + count % 2, versions[count % 2])
        seconds.append(time.thread_time() - start)
    assert sorted(seconds)[len(seconds) // 2] < 0.005

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from dmpo_app.diffusion.stable_diffusion import (
    Denoiser,
    add_noise,
    encode_prompts,
    load_denoiser,
    load_pipeline,
    predict,
    resolve_device,
    resolve_dtype,
    training_target,
)
from dmpo_app.diffusion.tensor_files import dump_latents, dump_prompt_embeds, load_latents, load_prompt_embeds
from dmpo_app.errors import ModelUnavailable, SetupProblem, StudioError
from tests.tiny_pipeline import make_tiny_pipeline


@pytest.fixture
def denoiser(tiny_model: Path) -> Denoiser:
    return load_denoiser(str(tiny_model), device="cpu", dtype="float32")


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=generator)
    return latents, noise, torch.tensor([10, 900])


def test_noising_follows_the_formula(denoiser: Denoiser) -> None:
    latents, noise, timesteps = batch()
    alphabar = denoiser.noise_scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    expected = alphabar.sqrt() * latents + (1 - alphabar).sqrt() * noise
    assert torch.allclose(add_noise(denoiser.noise_scheduler, latents, noise, timesteps), expected, atol=1e-6)
    assert torch.equal(training_target(denoiser.noise_scheduler, latents, noise, timesteps), noise)


def test_a_velocity_model_is_trained_on_the_velocity(tmp_path: Path) -> None:
    folder = make_tiny_pipeline(tmp_path / "v", prediction_type="v_prediction")
    scheduler = load_denoiser(str(folder), device="cpu").noise_scheduler
    latents, noise, timesteps = batch()
    alphabar = scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    expected = alphabar.sqrt() * noise - (1 - alphabar).sqrt() * latents
    assert torch.allclose(training_target(scheduler, latents, noise, timesteps), expected, atol=1e-6)


def test_a_prediction_type_that_is_not_known_is_refused_at_loading(tmp_path: Path, tiny_model: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("epsilon", "sample"))
    with pytest.raises(ModelUnavailable, match="sample"):
        load_denoiser(str(folder), device="cpu")


def test_the_prediction_is_float32_whatever_the_model_is(tiny_model: Path) -> None:
    latents, _, timesteps = batch()
    embeds = torch.zeros(2, 16, 16)
    exact = predict(load_denoiser(str(tiny_model), device="cpu").unet, latents, timesteps, embeds)
    half = predict(load_denoiser(str(tiny_model), device="cpu", dtype="bfloat16").unet, latents, timesteps, embeds)
    assert exact.dtype is half.dtype is torch.float32
    assert torch.allclose(exact, half, atol=0.1)


def test_prompts_are_embedded_each_on_its_own(tiny_model: Path) -> None:
    pipeline = load_pipeline(str(tiny_model), device="cpu")
    both = encode_prompts(pipeline, ["a red fox", "a blue whale"])
    assert torch.equal(both[1], encode_prompts(pipeline, ["a blue whale"])[0])
    assert not torch.equal(both[0], both[1])


def test_everything_that_is_loaded_is_frozen(tiny_model: Path) -> None:
    pipeline = load_pipeline(str(tiny_model), device="cpu")
    modules = (pipeline.unet, pipeline.vae, pipeline.text_encoder, load_denoiser(str(tiny_model), device="cpu").unet)
    for module in modules:
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_damaged_weights_are_reported_as_such(tmp_path: Path, tiny_model: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelUnavailable, match="could not be loaded"):
        load_pipeline(str(folder), device="cpu")


def test_too_little_memory_says_what_to_set(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("dmpo_app.diffusion.stable_diffusion.StableDiffusionPipeline.from_pretrained", too_large)
    with pytest.raises(ModelUnavailable, match=r"does not fit.*DMPO_RENDER__DTYPE"):
        load_pipeline(str(tiny_model), device="cpu")


def test_devices_and_dtypes() -> None:
    cpu = resolve_device("cpu")
    assert resolve_dtype("auto", cpu) is torch.float32
    assert resolve_dtype("float16", cpu) is torch.float16
    assert resolve_dtype("auto", torch.device("mps")) is torch.float16
    with pytest.raises(SetupProblem, match="'toaster'"):
        resolve_device("toaster")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_latents_and_embeddings_survive_as_bytes(dtype: torch.dtype) -> None:
    latents, embeds = torch.randn(4, 8, 8).to(dtype), torch.randn(16, 16).to(dtype)
    assert torch.equal(load_latents(dump_latents(latents)), latents)
    assert torch.equal(load_prompt_embeds(dump_prompt_embeds(embeds)), embeds)
    assert dump_latents(latents) == dump_latents(latents.clone())


def test_a_file_of_another_kind_is_not_taken_for_latents() -> None:
    latents = dump_latents(torch.zeros(4, 8, 8))
    for data in (b"", latents[:-8], dump_prompt_embeds(torch.zeros(2, 2))):
        with pytest.raises(StudioError, match="latents"):
            load_latents(data)
    with pytest.raises(ValueError, match="no batch"):
        dump_latents(torch.zeros(1, 4, 8, 8))

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.stable_diffusion import FAMILY
from dmpo_app.diffusion.loading import load_denoiser, load_pipeline, resolve_dtype
from dmpo_app.diffusion.placement import resolve_device
from dmpo_app.diffusion.tensor_files import dump_conditioning, dump_latents, load_conditioning, load_latents
from dmpo_app.errors import ModelUnavailableError, SetupError, StudioError
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
    assert torch.allclose(denoiser.add_noise(latents, noise, timesteps), expected, atol=1e-6)
    assert torch.equal(denoiser.training_target(latents, noise, timesteps), noise)


def test_a_velocity_model_is_trained_on_the_velocity(tmp_path: Path) -> None:
    folder = make_tiny_pipeline(tmp_path / "v", prediction_type="v_prediction")
    denoiser = load_denoiser(str(folder), device="cpu")
    latents, noise, timesteps = batch()
    alphabar = denoiser.noise_scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    expected = alphabar.sqrt() * noise - (1 - alphabar).sqrt() * latents
    assert torch.allclose(denoiser.training_target(latents, noise, timesteps), expected, atol=1e-6)


def test_a_prediction_type_that_is_not_known_is_refused_at_loading(tmp_path: Path, tiny_model: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("epsilon", "sample"))
    with pytest.raises(ModelUnavailableError, match="sample"):
        load_denoiser(str(folder), device="cpu")


def test_the_prediction_is_float32_whatever_the_model_is(tiny_model: Path) -> None:
    latents, _, timesteps = batch()
    embeds = {"prompt_embeds": torch.zeros(2, 16, 16)}
    exact = load_denoiser(str(tiny_model), device="cpu").predict(latents, timesteps, embeds)
    half = load_denoiser(str(tiny_model), device="cpu", dtype="bfloat16").predict(latents, timesteps, embeds)
    assert exact.dtype is half.dtype is torch.float32
    assert torch.allclose(exact, half, atol=0.1)


def test_everything_that_is_loaded_is_frozen(tiny_model: Path) -> None:
    pipeline = load_pipeline(str(tiny_model), device="cpu")
    modules = (pipeline.unet, pipeline.vae, pipeline.text_encoder, load_denoiser(str(tiny_model), device="cpu").module)
    for module in modules:
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_damaged_weights_are_reported_as_such(tmp_path: Path, tiny_model: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelUnavailableError, match="could not be loaded"):
        load_pipeline(str(folder), device="cpu")


def test_too_little_memory_says_what_to_set(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FAMILY.pipeline_class, "from_pretrained", too_large)
    with pytest.raises(ModelUnavailableError, match=r"does not fit.*DMPO_RENDER__DTYPE"):
        load_pipeline(str(tiny_model), device="cpu")


def test_devices_and_dtypes() -> None:
    cpu = resolve_device("cpu")
    assert resolve_dtype("auto", cpu) is torch.float32
    assert resolve_dtype("float16", cpu) is torch.float16
    assert resolve_dtype("auto", torch.device("mps")) is torch.float16
    with pytest.raises(SetupError, match="'toaster'"):
        resolve_device("toaster")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_latents_and_embeddings_survive_as_bytes(dtype: torch.dtype) -> None:
    latents, embeds = torch.randn(4, 8, 8).to(dtype), torch.randn(16, 16).to(dtype)
    assert torch.equal(load_latents(dump_latents(latents)), latents)
    assert torch.equal(load_conditioning(dump_conditioning({"prompt_embeds": embeds}))["prompt_embeds"], embeds)
    assert dump_latents(latents) == dump_latents(latents.clone())


def test_an_encoded_prompt_of_one_tensor_is_the_file_it_always_was_and_more_have_one_too() -> None:
    embeds, pooled = torch.randn(16, 16), torch.randn(8)
    assert dump_conditioning({"prompt_embeds": embeds}) == save({"prompt_embeds": embeds})
    both = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
    data = dump_conditioning(both)
    assert data == dump_conditioning(dict(reversed(both.items())))
    assert all(torch.equal(tensor, both[name]) for name, tensor in load_conditioning(data).items())
    assert load_conditioning(data).keys() == both.keys()
    with pytest.raises(StudioError, match="prompt_embeds"):
        load_conditioning(save({"pooled_prompt_embeds": pooled}))


def test_a_file_of_another_kind_is_not_taken_for_latents() -> None:
    latents = dump_latents(torch.zeros(4, 8, 8))
    for data in (b"", latents[:-8], dump_conditioning({"prompt_embeds": torch.zeros(2, 2)})):
        with pytest.raises(StudioError, match="latents"):
            load_latents(data)
    with pytest.raises(ValueError, match="no batch"):
        dump_latents(torch.zeros(1, 4, 8, 8))

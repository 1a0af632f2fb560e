"""Model families in training: noise, targets and weights by their formulas, LoRA layers, the gate of each image."""

import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dmpo_app.diffusion import lora
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.flux import image_ids, pack, unpack
from dmpo_app.diffusion.families.registry import FAMILIES, get_family
from dmpo_app.diffusion.families.stable_diffusion_xl import time_ids
from dmpo_app.diffusion.fused_lora import reference_mode
from dmpo_app.diffusion.loading import load_denoiser
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.errors import AdapterMismatchError, ModelUnavailableError
from dmpo_app.settings import RoundSettings
from tests.adapters import random_adapter
from tests.tiny_models.cases import CASES, Case, one_a_family
from tests.tolerance import assert_latents_agree

TIMESTEPS = torch.tensor([0, 10, 500, 999])


@pytest.fixture
def denoiser(folder: Path) -> Denoiser:
    return load_denoiser(str(folder), device="cpu", dtype="float32")


def latents_and_noise(case: Case, count: int = len(TIMESTEPS)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, count, *case.latent_shape, generator=generator)
    return latents, noise


def conditioning(case: Case, count: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {name: torch.randn(count, *shape, generator=generator) for name, shape in case.conditioning.items()}


def predict(denoiser: Denoiser, case: Case, count: int = 2) -> Tensor:
    latents, _ = latents_and_noise(case, count)
    with torch.no_grad():
        return denoiser.predict(latents, torch.full((count,), 300), conditioning(case, count))


def flow_sigmas(case: Case) -> Tensor:
    """Of TIMESTEPS: shifted by 3 (SD3), by exp(mu) of the number of tokens (Flux dev), or not at all (schnell)."""
    even = (TIMESTEPS + 1) / 1000
    tokens = case.latent_shape[1] * case.latent_shape[2] // 4
    mu = 0.5 + (tokens - 256) * (1.15 - 0.5) / (4096 - 256)
    shift = {"sd3": 3.0, "flux": math.exp(mu), "flux-schnell": 1.0}[case.name]
    return shift * even / (1 + (shift - 1) * even)


def test_noise_target_and_weight_follow_the_formulas(case: Case, denoiser: Denoiser) -> None:
    latents, noise = latents_and_noise(case)
    if case.is_flow:
        sigma = flow_sigmas(case).view(-1, 1, 1, 1)
        noisy, target, weight = sigma * noise + (1 - sigma) * latents, noise - latents, (1 - sigma).square()
    else:
        alphabar = denoiser.noise_scheduler.alphas_cumprod[TIMESTEPS].view(-1, 1, 1, 1)
        noisy = alphabar.sqrt() * latents + (1 - alphabar).sqrt() * noise
        velocity = alphabar.sqrt() * noise - (1 - alphabar).sqrt() * latents
        is_velocity = denoiser.prediction_type == "v_prediction"
        target, weight = (velocity, alphabar) if is_velocity else (noise, torch.ones_like(alphabar))
    torch.testing.assert_close(denoiser.add_noise(latents, noise, TIMESTEPS), noisy, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(denoiser.training_target(latents, noise, TIMESTEPS), target, rtol=1e-5, atol=1e-5)
    found = denoiser.noise_error_weight(TIMESTEPS, case.latent_shape[1:])
    torch.testing.assert_close(found, weight.flatten().float(), rtol=1e-5, atol=1e-6)


def test_the_weight_turns_an_error_of_the_prediction_into_one_of_the_noise_it_implies(
    case: Case, denoiser: Denoiser
) -> None:
    latents, noise = latents_and_noise(case)
    noisy = denoiser.add_noise(latents, noise, TIMESTEPS)
    target = denoiser.training_target(latents, noise, TIMESTEPS)
    predicted = target + 0.1 * noise.roll(1, 0)
    if case.is_flow:
        implied = noisy + (1 - flow_sigmas(case).view(-1, 1, 1, 1)) * predicted
    elif denoiser.prediction_type == "epsilon":
        implied = predicted
    else:
        alphabar = denoiser.noise_scheduler.alphas_cumprod[TIMESTEPS].view(-1, 1, 1, 1)
        implied = alphabar.sqrt() * predicted + (1 - alphabar).sqrt() * noisy
    of_noise = (implied - noise).square().mean((1, 2, 3))
    weighted = (predicted - target).square().mean((1, 2, 3)) * denoiser.noise_error_weight(
        TIMESTEPS, case.latent_shape[1:]
    )
    torch.testing.assert_close(weighted, of_noise, rtol=1e-3, atol=1e-7)


def test_training_tells_the_denoiser_the_times_that_sampling_tells_it(case: Case, denoiser: Denoiser) -> None:
    family, size = denoiser.family, case.latent_shape[1:]
    sampler = family.process.sampling_scheduler(family.process.samplers[0], denoiser.noise_scheduler.config)
    family.process.set_timesteps(sampler, 4, size, torch.device("cpu"))
    told = family.process.model_time(denoiser.noise_scheduler, torch.arange(denoiser.num_timesteps), size)
    gaps = (told[None, :].float() - sampler.timesteps[:, None].float()).abs().min(1).values
    assert float(gaps.max()) < 3.1, "every time of sampling lies between two of training"
    assert float(told[-1]) >= 999 - 1e-3


def test_a_schedule_of_zero_terminal_snr_ends_in_pure_noise(case_folder: Callable[[Case], Path]) -> None:
    case = CASES["sd2-zero-snr"]
    denoiser = load_denoiser(str(case_folder(case)), device="cpu")
    latents, noise = latents_and_noise(case)
    last = torch.full((len(latents),), 999)
    torch.testing.assert_close(denoiser.add_noise(latents, noise, last), noise)
    torch.testing.assert_close(denoiser.training_target(latents, noise, last), -latents)


@one_a_family
def test_the_trainer_reads_neither_autoencoder_nor_text_encoders(tmp_path: Path, case: Case, folder: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    for weights in (*copy.glob("vae/*.safetensors"), *copy.glob("text_encoder*/*.safetensors")):
        weights.write_bytes(b"no weights")
    assert torch.equal(
        predict(load_denoiser(str(copy), device="cpu"), case), predict(load_denoiser(str(folder), device="cpu"), case)
    )


def test_the_schedule_of_another_kind_of_diffusion_is_refused(
    tmp_path: Path, case: Case, case_folder: Callable[[Case], Path]
) -> None:
    copy = Path(shutil.copytree(case_folder(case), tmp_path / "model"))
    other = case_folder(CASES["sd1" if case.is_flow else "sd3"])
    shutil.copy(other / "scheduler" / "scheduler_config.json", copy / "scheduler")
    with pytest.raises(ModelUnavailableError, match="noise schedule"):
        load_denoiser(str(copy), device="cpu")


def specs(case: Case) -> list[LoraSpec]:
    """The presets, and one that reaches layers which see one embedding (B, D) for each image."""
    family = get_family(case.family)
    embedding_layers = ("time_emb_proj", "linear_1", "norm1.linear", "norm.linear", "to_q")
    modules = [*family.targets.values(), embedding_layers]
    return [LoraSpec(4, 6.0, names, family.component) for names in modules]


@one_a_family
def test_a_fresh_adapter_changes_nothing_and_an_adapter_comes_out_again(case: Case, denoiser: Denoiser) -> None:
    base = predict(denoiser, case)
    for spec in specs(case):
        parameters = lora.attach(denoiser.module, spec, seed=1)
        assert {key: tuple(value.shape) for key, value in parameters.items()} == lora.expected_shapes(
            denoiser.module, spec
        )
        assert torch.equal(predict(denoiser, case), base)
        lora.load_state_in_place(parameters, random_adapter(denoiser.module, 1, spec).tensors)
        assert not torch.equal(predict(denoiser, case), base)
        with reference_mode(denoiser.module):
            assert torch.equal(predict(denoiser, case), base)
        lora.detach(denoiser.module)
        assert torch.equal(predict(denoiser, case), base)


@one_a_family
def test_the_gate_gives_each_image_what_a_pass_of_its_own_strength_gives_it(case: Case, denoiser: Denoiser) -> None:
    for spec in specs(case):
        parameters = lora.attach(denoiser.module, spec, seed=0)
        lora.load_state_in_place(parameters, random_adapter(denoiser.module, 1, spec).tensors)
        strengths = [0.0, 0.5, 1.0, 1.5]
        separate = []
        for strength in strengths:
            with lora.gate(denoiser.module, spec, [strength] * 4):
                separate.append(predict(denoiser, case, 4))
        with lora.gate(denoiser.module, spec, strengths):
            mixed = predict(denoiser, case, 4)
        for image, whole in enumerate(separate):
            assert_latents_agree(mixed[image], whole[image])
        assert not torch.allclose(separate[0][0], separate[3][0], atol=1e-3)
        assert_latents_agree(predict(denoiser, case, 4), separate[2])  # the plain scaling is back


def test_the_adapters_layers_are_the_familys_unless_the_settings_name_some() -> None:
    for entry in FAMILIES.values():
        family = get_family(entry.name)
        assert (family.name, family.component) == (entry.name, entry.component)
        usual = LoraSpec.from_settings(RoundSettings(), family)
        assert usual.target_modules == family.targets["wide" if entry.name == "stable_diffusion" else "attention"]
        assert (
            LoraSpec.from_settings(RoundSettings(target_modules="wide"), family).target_modules
            == family.targets["wide"]
        )
        own = LoraSpec.from_settings(RoundSettings(target_modules=("to_q",)), family)
        assert (own.target_modules, own.component) == (("to_q",), entry.component)


@one_a_family
def test_layers_that_the_model_does_not_have_are_named(case: Case, denoiser: Denoiser) -> None:
    spec = LoraSpec(4, 4.0, ("no_such_layer",), denoiser.family.component)
    with pytest.raises(AdapterMismatchError, match=r"no_such_layer.*DMPO_ROUND__TARGET_MODULES"):
        lora.attach(denoiser.module, spec, seed=0)


def test_packing_latents_into_tokens_can_be_undone_and_ids_say_where_a_token_is() -> None:
    latents = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).view(2, 3, 4, 6)
    tokens = pack(latents)
    assert tokens.shape == (2, 6, 12)
    assert torch.equal(tokens[0, 1, :4], latents[0, 0, :2, 2:4].flatten())
    assert torch.equal(unpack(tokens, 4, 6), latents)
    assert image_ids(2, 3).tolist()[4] == [0, 1, 1]


def test_time_ids_speak_of_pixels() -> None:
    assert time_ids(torch.zeros(2, 4, 128, 96), torch.float32).tolist() == [[1024, 768, 0, 0, 1024, 768]] * 2


def test_a_family_that_nobody_registered_is_named() -> None:
    with pytest.raises(KeyError, match="sana"):
        get_family("sana")


def test_that_torchvision_is_not_installed_is_no_news_and_all_else_is() -> None:
    get_family("stable_diffusion")
    log = logging.getLogger("transformers.utils.import_utils")

    def shown(message: str) -> bool:
        return bool(log.filter(log.makeRecord(log.name, logging.WARNING, __file__, 1, message, (), None)))

    assert not shown("`CLIPImageProcessor` requires torchvision (not installed); falling back to ...")
    assert shown("Some weights of the model were not initialized")

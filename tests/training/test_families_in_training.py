"""A round on every family: exact where exactness is promised, only the adapter moves, and it moves to the voters."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from dmpo_app.diffusion.adapter_files import read_adapter
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.live_model import LiveModel, Shot
from dmpo_app.diffusion.loading import load_denoiser
from dmpo_app.diffusion.lora import LoraSpec, attach, load_state_in_place
from dmpo_app.settings import RenderSettings, RoundSettings
from dmpo_app.training.data.dataset import PairDataset, build_dataset
from dmpo_app.training.data.training_examples import examples_for_step
from dmpo_app.training.monitoring.evaluation import evaluate
from dmpo_app.training.monitoring.latent_preview import LatentPreview, LatentRgbMap
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.reference_cache import ReferenceCache
from dmpo_app.training.rounds.round_runner import SliceOutcome
from tests.adapters import random_adapter
from tests.tiny_models.cases import NUM_STEPS, Case, one_a_family
from tests.tolerance import LOSS_RELATIVE
from tests.training.training_studio import FAST, TrainingStudio

QUICK = FAST.model_copy(
    update={"num_steps": 12, "evaluate_every": 12, "learning_rate": 5e-3, "held_out_share": 0.0, "batch_pairs": 6}
)


@pytest.fixture
def voted(tmp_path: Path, case: Case, folder: Path) -> Iterator[TrainingStudio]:
    studio = TrainingStudio.open(tmp_path / "home", folder)
    studio.latent_shape, studio.conditioning = case.latent_shape, case.conditioning
    studio.add_pairs(6, num_prompts=4)
    studio.vote(6)
    yield studio
    studio.store.close()


@pytest.fixture
def denoiser(folder: Path) -> Denoiser:
    return load_denoiser(str(folder), device="cpu", dtype="float32")


def dataset_of(studio: TrainingStudio) -> PairDataset:
    return build_dataset(studio.store.votes.training_votes(studio.base), studio.store.files, alpha=0.05)


def errors_of(denoiser: Denoiser, studio: TrainingStudio) -> PairErrors:
    return PairErrors(denoiser, dataset_of(studio), ReferenceCache(), num_slots=8, slot_seed=0)


def test_a_fresh_adapter_has_margin_zero_exactly(case: Case, denoiser: Denoiser, voted: TrainingStudio) -> None:
    attach(denoiser.module, LoraSpec.from_settings(QUICK, denoiser.family), seed=0)
    errors = errors_of(denoiser, voted)
    for step in range(6):
        draws = examples_for_step(step, num_pairs=6, batch_pairs=4, num_slots=8, seed=1)
        assert (errors.terms(draws).margin(2000.0) == 0).all()


def test_a_round_changes_only_the_adapter_lowers_the_loss_and_can_be_rendered(
    case: Case, folder: Path, denoiser: Denoiser, voted: TrainingStudio
) -> None:
    before = {name: tensor.clone() for name, tensor in denoiser.module.state_dict().items()}
    round_id, token = voted.start(settings=QUICK)
    assert voted.run(denoiser, round_id, token, slices=(0.0, 600.0)) is SliceOutcome.FINISHED
    after = denoiser.module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)

    published = voted.store.adapters.get(voted.base, 1)
    adapter = read_adapter(published.folder, published.sha256)
    errors = errors_of(denoiser, voted)
    parameters = attach(denoiser.module, adapter.spec, seed=0)
    untrained = evaluate(errors, beta=500.0, num_slots=8, micro_pairs=6)
    load_state_in_place(parameters, adapter.tensors)
    trained = evaluate(errors, beta=500.0, num_slots=8, micro_pairs=6)
    assert trained.loss < untrained.loss
    assert trained.agreement.margin > 0 == untrained.agreement.margin

    settings = RenderSettings(num_steps=NUM_STEPS, resolution=case.resolution, device="cpu", dtype="float32")
    live = LiveModel.load(str(folder), settings, LoraSpec.from_settings(RoundSettings(), denoiser.family))
    live.swap(1, adapter)
    base, adapted = live.render([Shot("a red fox", 1, 0), Shot("a red fox", 1, 1)])
    assert not torch.equal(base.latents, adapted.latents)


@one_a_family
def test_a_model_in_half_precision_trains_an_adapter_in_float32(
    case: Case, folder: Path, voted: TrainingStudio
) -> None:
    half = load_denoiser(str(folder), device="cpu", dtype="bfloat16")
    parameters = attach(half.module, LoraSpec.from_settings(QUICK, half.family), seed=0)
    draws = examples_for_step(0, num_pairs=6, batch_pairs=4, num_slots=8, seed=1)
    margins = errors_of(half, voted).terms(draws).margin(500.0)
    assert (margins == 0).all()
    torch.autograd.backward(margins.sum())
    gradients = [parameter.grad for key, parameter in parameters.items() if ".lora_B." in key]
    assert all(gradient is not None and gradient.dtype is torch.float32 for gradient in gradients)
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)
    assert any(gradient is not None and bool(gradient.any()) for gradient in gradients)


@one_a_family
def test_activations_computed_twice_give_the_same_margins_and_gradients(
    case: Case, denoiser: Denoiser, voted: TrainingStudio
) -> None:
    parameters = attach(denoiser.module, LoraSpec.from_settings(QUICK, denoiser.family), seed=0)
    load_state_in_place(
        parameters, random_adapter(denoiser.module, 1, LoraSpec.from_settings(QUICK, denoiser.family)).tensors
    )
    errors = errors_of(denoiser, voted)
    draws = examples_for_step(0, num_pairs=6, batch_pairs=2, num_slots=8, seed=1)

    def margins_and_gradients() -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        denoiser.module.zero_grad(set_to_none=True)
        margins = errors.terms(draws).margin(500.0)
        torch.autograd.backward(margins.sum())
        return margins.detach(), [parameter.grad for parameter in parameters.values()]

    margins, gradients = margins_and_gradients()
    denoiser.module.enable_gradient_checkpointing()
    again, recomputed = margins_and_gradients()
    torch.testing.assert_close(margins, again, rtol=LOSS_RELATIVE, atol=LOSS_RELATIVE)
    assert (margins.abs() > 10 * LOSS_RELATIVE).all()
    for kept, computed in zip(gradients, recomputed, strict=True):
        assert kept is not None
        assert computed is not None
        torch.testing.assert_close(kept, computed, rtol=1e-4, atol=1e-6)


@one_a_family
def test_a_prompt_is_kept_once_however_many_pairs_it_has(case: Case, voted: TrainingStudio) -> None:
    data, cpu = dataset_of(voted), torch.device("cpu")
    assert len({files.prompt_embeds for files in data.files}) == 4
    both = data.conditioning([0, 4], cpu)  # six pairs of four prompts in turn
    assert {name: tuple(tensor.shape[1:]) for name, tensor in both.items()} == case.conditioning
    assert all(torch.equal(tensor[0], tensor[1]) for tensor in both.values())
    other = data.conditioning([0, 1], cpu)
    assert not any(torch.equal(tensor[0], tensor[1]) for tensor in other.values())


@one_a_family
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_images_watched_under_a_fresh_adapter_are_those_of_the_base_model(
    case: Case, folder: Path, voted: TrainingStudio, dtype: str
) -> None:
    denoiser = load_denoiser(str(folder), device="cpu", dtype=dtype)
    parameters = attach(denoiser.module, LoraSpec.from_settings(QUICK, denoiser.family), seed=0)
    weights = 40 * np.random.default_rng(0).normal(size=(case.latent_shape[0] + 1, 3))
    weights[-1] = 128
    preview = LatentPreview(denoiser, dataset_of(voted), LatentRgbMap(weights, 1.0), num_images=4, seed=1)
    assert preview.drift(batch_size=4) == dict.fromkeys(("saturation", "contrast", "sharpness", "diversity"), 1.0)
    load_state_in_place(parameters, {key: torch.full_like(value, 0.3) for key, value in parameters.items()})
    assert 1.0 not in preview.drift(batch_size=4).values()

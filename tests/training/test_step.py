"""Margins and one step: exact where exactness is promised, and nothing moves but the adapter."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.components import UNET_WIDE
from dmpo_app.diffusion.fused_lora import lora_layers
from dmpo_app.diffusion.lora import LoraSpec, attach
from dmpo_app.errors import RoundFailedError
from dmpo_app.objective import OBJECTIVES
from dmpo_app.training.data.dataset import PairDataset, PairFiles, build_dataset
from dmpo_app.training.data.training_examples import Example, examples_for_step
from dmpo_app.training.loop.optimizers import make_optimizer
from dmpo_app.training.loop.step import PreferenceLoss, train_step
from dmpo_app.training.monitoring.early_stopping import compute_agreement
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.reference_cache import ReferenceCache
from tests.training.training_studio import TrainingStudio

SPEC = LoraSpec(rank=2, lora_alpha=4.0, target_modules=UNET_WIDE)


@pytest.fixture
def dataset(studio: TrainingStudio) -> PairDataset:
    studio.add_pairs(6)
    studio.vote(6)
    return build_dataset(studio.store.votes.training_votes(studio.base), studio.store.files, alpha=0.05)


def pair_errors(denoiser: Denoiser, dataset: PairDataset, cache: ReferenceCache | None = None) -> PairErrors:
    return PairErrors(denoiser, dataset, ReferenceCache() if cache is None else cache, num_slots=8, slot_seed=0)


def draws_of(step: int, batch_pairs: int = 4) -> list[Example]:
    return examples_for_step(step, num_pairs=6, batch_pairs=batch_pairs, num_slots=8, seed=1)


def dmpo_with(beta: float) -> PreferenceLoss:
    return PreferenceLoss(OBJECTIVES["dmpo"], beta=beta, margin_beta=beta, options={})


def make_different(parameters: dict[str, torch.nn.Parameter]) -> None:
    """An adapter that does something."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def test_a_fresh_adapter_has_margin_zero_exactly_on_every_pair_and_slot(
    denoiser: Denoiser, dataset: PairDataset
) -> None:
    attach(denoiser.module, SPEC, seed=0)
    errors = pair_errors(denoiser, dataset)
    for step in range(12):
        assert (errors.terms(draws_of(step)).margin(2000.0) == 0).all()


def test_a_reference_from_another_place_in_another_batch_is_still_exact(
    denoiser: Denoiser, dataset: PairDataset
) -> None:
    attach(denoiser.module, SPEC, seed=0)
    errors = pair_errors(denoiser, dataset)
    draws = draws_of(0)
    errors.terms(draws)
    others = draws_of(1)
    errors.terms(others)
    mixed = [others[1], draws[3], others[0], draws[0]]
    assert (errors.terms(mixed).margin(2000.0) == 0).all()


def test_swapping_the_images_of_every_pair_flips_the_margins(denoiser: Denoiser, dataset: PairDataset) -> None:
    make_different(attach(denoiser.module, SPEC, seed=0))
    swapped = replace(
        dataset,
        files=tuple(PairFiles(files.latents_b, files.latents_a, files.prompt_embeds) for files in dataset.files),
    )
    with torch.no_grad():
        margins = pair_errors(denoiser, dataset).terms(draws_of(0)).margin(2000.0)
        flipped = pair_errors(denoiser, swapped).terms(draws_of(0)).margin(2000.0)
    assert (margins.abs() > 0.01).all()
    torch.testing.assert_close(margins, -flipped, rtol=1e-4, atol=1e-3)


def test_only_the_adapters_parameters_move(denoiser: Denoiser, dataset: PairDataset) -> None:
    parameters = attach(denoiser.module, SPEC, seed=0)
    ours = {id(parameter) for parameter in parameters.values()}
    before = {name: tensor.detach().clone() for name, tensor in denoiser.module.state_dict(keep_vars=True).items()}
    optimizer = make_optimizer(parameters, learning_rate=1e-2)
    errors = pair_errors(denoiser, dataset)
    for step in range(2):
        train_step(errors, draws_of(step), parameters, optimizer, dmpo_with(500.0), max_grad_norm=1.0, micro_pairs=4)
    moved = 0
    for name, tensor in denoiser.module.state_dict(keep_vars=True).items():
        if id(tensor) in ours:
            moved += not torch.equal(tensor, before[name])
        else:
            assert torch.equal(tensor, before[name]), name
    assert moved == len(parameters) == 2 * len(lora_layers(denoiser.module))


def test_training_moves_the_margins_to_the_voters_side(denoiser: Denoiser, dataset: PairDataset) -> None:
    parameters = attach(denoiser.module, SPEC, seed=0)
    optimizer = make_optimizer(parameters, learning_rate=3e-3)
    errors = pair_errors(denoiser, dataset)
    results = [
        train_step(errors, draws_of(step, 6), parameters, optimizer, dmpo_with(500.0), max_grad_norm=1.0, micro_pairs=6)
        for step in range(25)
    ]
    assert results[0].agreement.margin == 0
    assert results[0].agreement.accuracy == 0.5
    assert sum(result.agreement.margin for result in results[-5:]) / 5 > 0.5
    assert sum(result.loss for result in results[-5:]) < sum(result.loss for result in results[:5])


def test_a_batch_in_pieces_takes_the_same_step_as_a_whole_one(denoiser: Denoiser, dataset: PairDataset) -> None:
    states = []
    for micro_pairs in (4, 1):
        parameters = attach(denoiser.module, SPEC, seed=0)
        make_different(parameters)
        errors = pair_errors(denoiser, dataset)
        optimizer = torch.optim.SGD(list(parameters.values()), lr=1e-3)
        train_step(
            errors, draws_of(0), parameters, optimizer, dmpo_with(50.0), max_grad_norm=1e9, micro_pairs=micro_pairs
        )
        states.append([parameter.detach().clone() for parameter in parameters.values()])
    for whole, in_pieces in zip(*states, strict=True):
        torch.testing.assert_close(whole, in_pieces, rtol=1e-4, atol=1e-6)


def test_a_gradient_that_is_not_finite_fails_before_anything_is_updated(
    denoiser: Denoiser, dataset: PairDataset
) -> None:
    parameters = attach(denoiser.module, SPEC, seed=0)
    optimizer = make_optimizer(parameters, learning_rate=1e-2)
    errors = pair_errors(denoiser, dataset)
    first = next(iter(parameters.values()))
    with torch.no_grad():
        first[0, 0] = float("nan")
    before = [parameter.detach().clone() for parameter in parameters.values()]
    with pytest.raises(RoundFailedError, match="diverged: the loss is nan"):
        train_step(errors, draws_of(0), parameters, optimizer, dmpo_with(500.0), max_grad_norm=1.0, micro_pairs=4)
    for old, new in zip(before, parameters.values(), strict=True):
        assert torch.allclose(old, new, rtol=0, atol=0, equal_nan=True)
    assert all(parameter.grad is None for parameter in parameters.values())


def test_references_are_computed_once_a_slot_and_survive_being_saved(
    denoiser: Denoiser, dataset: PairDataset, tmp_path: Path
) -> None:
    make_different(attach(denoiser.module, SPEC, seed=0))
    cache = ReferenceCache()
    errors = pair_errors(denoiser, dataset, cache)
    with torch.no_grad():
        first = errors.terms(draws_of(0)).margin(2000.0)
    assert len(cache) == 4
    cache.save(tmp_path, "some numerics")
    again = ReferenceCache.load(tmp_path, "some numerics")
    assert len(again) == 4
    passes = count_passes(denoiser)
    with torch.no_grad():
        second = pair_errors(denoiser, dataset, again).terms(draws_of(0)).margin(2000.0)
    assert passes() == 1  # the policy's alone
    assert torch.equal(first, second)


def test_references_of_other_numerics_or_from_a_damaged_file_are_not_used(tmp_path: Path) -> None:
    cache = ReferenceCache({(1, 2): (0.5, 0.25)})
    cache.save(tmp_path, "float32")
    assert len(ReferenceCache.load(tmp_path, "bfloat16")) == 0
    path = next(tmp_path.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:30])
    assert len(ReferenceCache.load(tmp_path, "float32")) == 0


def test_agreement_counts_ties_of_voters_not_and_undecided_models_half() -> None:
    found = compute_agreement(torch.tensor([2.0, -1.0, 0.0, 5.0]), torch.tensor([0.95, 0.05, 0.95, 0.5]))
    assert found.num_decided == 3
    assert found.margin == pytest.approx((2 + 1 + 0) / 3)
    assert found.accuracy == pytest.approx(2.5 / 3)
    assert (found + found).accuracy == pytest.approx(2.5 / 3)


def count_passes(denoiser: Denoiser) -> Callable[[], int]:
    passes = [0]

    def note(*_: Any) -> None:
        passes[0] += 1

    denoiser.module.register_forward_hook(note)
    return lambda: passes[0]

"""A compiled round: one graph for policy and reference, kept through swaps and rounds, and none where it cannot be.

The tests trace and differentiate the graph (aot_eager) and leave out the code that inductor would make of it.
"""

import logging
from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.utils import counters

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.lora import LoraSpec, attach, detach, load_state_in_place, lora_state
from dmpo_app.training.data.dataset import build_dataset
from dmpo_app.training.data.training_examples import Example
from dmpo_app.training.loop import compilation
from dmpo_app.training.loop.compilation import can_compile, compile_in_place, restore_eager, zeroed_adapter
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.prefetch import ReferencePrefetcher
from dmpo_app.training.reference.reference_cache import ReferenceCache
from dmpo_app.training.rounds.round_runner import SliceOutcome
from tests.training.training_studio import FAST, TrainingStudio

SPEC = LoraSpec(rank=2, lora_alpha=4.0, target_modules=("to_q", "to_v"))
COMPILED = FAST.model_copy(
    update={
        "compile": True,
        "num_steps": 2,
        "target_modules": ("to_q", "to_v"),
        "evaluate_every": 2,
        "health_images": 4,
    }
)


@pytest.fixture(autouse=True)
def traced_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def test_one_graph_serves_policy_reference_and_evaluation_through_swaps_and_another_attachment(
    studio: TrainingStudio, denoiser: Denoiser
) -> None:
    studio.add_pairs(4)
    studio.vote(4)
    dataset = build_dataset(studio.store.votes.training_votes(studio.base), studio.store.files, alpha=0.05)
    draws = [Example(pair, slot) for pair, slot in zip(range(4), (1, 3, 5, 7), strict=True)]
    for seed in range(2):
        parameters = attach(denoiser.module, SPEC, seed=seed)
        compile_in_place(denoiser.module)
        errors = PairErrors.from_settings(denoiser, dataset, ReferenceCache(), FAST, compiled=True)
        assert (errors.terms(draws).margin(2000.0) == 0).all(), "an adapter that does nothing has no margin"
        other = {key: 0.05 * torch.ones_like(value) for key, value in parameters.items()}
        load_state_in_place(parameters, other)
        with torch.no_grad():
            assert (errors.terms(draws).margin(2000.0) != 0).any()
        margins = errors.terms(draws).margin(2000.0)
        torch.autograd.backward(margins.sum())
        assert all(parameter.grad is not None for parameter in parameters.values())
        restore_eager(denoiser.module)
        detach(denoiser.module)
    assert graphs() == 1


def test_an_adapter_without_effect_is_back_afterwards(denoiser: Denoiser) -> None:
    parameters = attach(denoiser.module, SPEC, seed=0)
    load_state_in_place(parameters, {key: torch.ones_like(value) for key, value in parameters.items()})
    before = lora_state(denoiser.module, "unet")
    with zeroed_adapter(parameters):
        assert not any(value.any() for key, value in parameters.items() if "lora_B" in key)
    after = lora_state(denoiser.module, "unet")
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_rounds_are_compiled_once_and_leave_the_denoiser_as_it_was(studio: TrainingStudio, denoiser: Denoiser) -> None:
    studio.add_pairs(8)
    studio.vote(8)
    token, compiled = None, []
    for _ in range(2):
        round_id, token = studio.start(settings=COMPILED, token=token)
        assert studio.run(denoiser, round_id, token, slices=[0.0, 600.0]) is SliceOutcome.FINISHED
        compiled.append(graphs())
        assert denoiser.module._compiled_call_impl is None
    probe = 1
    assert compiled == [1 + probe, 1 + probe]
    points = studio.store.rounds.list_progress(1)
    assert points[0].margin == 0
    prefetcher = ReferencePrefetcher(studio.store, studio.base, denoiser, COMPILED)
    assert not prefetcher.fill(), "references for a compiled round are its own"


def test_without_a_compiler_the_log_says_so_and_nothing_is_compiled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compilation, "BACKEND", "no such backend")
    with caplog.at_level(logging.WARNING):
        assert not can_compile(torch.device("cpu"))
    assert "goes on without it; a C++ compiler" in caplog.text

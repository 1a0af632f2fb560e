"""Held-out votes as judges: when a round is refused, and when too little is known to refuse it."""

import math

import pytest
import torch

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.components import UNET_ATTENTION
from dmpo_app.diffusion.lora import LoraSpec, attach
from dmpo_app.training.data.dataset import build_dataset
from dmpo_app.training.monitoring.early_stopping import VoteAgreement
from dmpo_app.training.monitoring.evaluation import Evaluation, compare, evaluate, evaluate_base
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.reference_cache import ReferenceCache
from tests.training.training_studio import TrainingStudio


def judged(*losses: float) -> Evaluation:
    return Evaluation(losses=losses, loss=sum(losses) / len(losses), agreement=VoteAgreement())


def test_the_standard_error_of_one_pair_a_prompt_is_the_textbooks() -> None:
    new, old = judged(1.0, 2.0, 3.0, 4.0), judged(0.0, 0.0, 0.0, 0.0)
    comparison = compare(new, old, ["a", "b", "c", "d"], [1, 1, 1, 1])
    assert comparison.difference == pytest.approx(2.5)
    assert comparison.standard_error == pytest.approx(torch.tensor([1.0, 2, 3, 4]).std().item() / 2)
    assert comparison.is_worse


def test_votes_on_one_prompt_do_not_count_as_independent() -> None:
    new, old = judged(*[1.0] * 10, *[-0.5] * 10), judged(*[0.0] * 20)
    by_prompt = compare(new, old, ["a"] * 10 + ["b"] * 10, [1] * 20)
    by_vote = compare(new, old, [str(n) for n in range(20)], [1] * 20)
    assert by_vote.is_worse
    assert not by_prompt.is_worse
    assert by_prompt.standard_error > by_vote.standard_error


def test_pairs_count_by_their_votes() -> None:
    comparison = compare(judged(1.0, 0.0), judged(0.0, 0.0), ["a", "b"], [3, 1])
    assert comparison.difference == pytest.approx(0.75)


def test_a_single_prompt_is_never_enough_to_refuse() -> None:
    comparison = compare(judged(5.0, 5.0), judged(0.0, 0.0), ["a", "a"], [1, 1])
    assert comparison.standard_error == math.inf
    assert not comparison.is_worse


def test_the_same_adapter_is_not_worse_than_itself() -> None:
    assert not compare(judged(0.3, 0.9), judged(0.3, 0.9), ["a", "b"], [1, 1]).is_worse


def test_a_fresh_adapter_is_judged_exactly_like_the_base_model(studio: TrainingStudio, denoiser: Denoiser) -> None:
    studio.add_pairs(5)
    studio.vote(5)
    dataset = build_dataset(studio.store.votes.training_votes(studio.base), studio.store.files, alpha=0.05)
    errors = PairErrors(denoiser, dataset, ReferenceCache(), num_slots=8, slot_seed=0)
    base = evaluate_base(errors)
    attach(denoiser.module, LoraSpec(2, 4.0, UNET_ATTENTION), seed=0)
    fresh = evaluate(errors, beta=500.0, num_slots=8, micro_pairs=3)  # 20 draws: the last batch is filled up
    assert len(fresh.losses) == 5
    assert fresh == base
    assert fresh.loss == pytest.approx(0.830, abs=1e-3)
    assert fresh.agreement.accuracy == 0.5

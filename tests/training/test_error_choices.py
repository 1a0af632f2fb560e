"""Choices for a round's errors: spread over other noise levels, weighted, and computed with less memory."""

from typing import Any, NoReturn

import pytest
import torch

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.lora import LoraSpec, attach
from dmpo_app.errors import RoundFailedError
from dmpo_app.settings import RoundSettings
from dmpo_app.training.data.dataset import PairDataset, build_dataset
from dmpo_app.training.data.training_examples import Example, compute_slot
from dmpo_app.training.loop import trainer
from dmpo_app.training.loop.step import train_step
from dmpo_app.training.monitoring.early_stopping import StepResult
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.reference_cache import ReferenceCache, numerics_key
from dmpo_app.training.rounds.round_runner import SliceOutcome
from tests.tiny_pipeline import LATENT_SHAPE
from tests.training.training_studio import FAST, TrainingStudio

SPEC = LoraSpec(rank=2, lora_alpha=4.0, target_modules=("to_q", "to_v"))
DRAWS = [Example(0, 1), Example(1, 3), Example(2, 6), Example(3, 7)]


@pytest.fixture
def dataset(studio: TrainingStudio) -> PairDataset:
    studio.add_pairs(4)
    studio.vote(4)
    return build_dataset(studio.store.votes.training_votes(studio.base), studio.store.files, alpha=0.05)


def errors_with(denoiser: Denoiser, dataset: PairDataset, **changes: Any) -> PairErrors:
    return PairErrors.from_settings(denoiser, dataset, ReferenceCache(), FAST.model_copy(update=changes))


def test_weighted_errors_are_those_of_the_implied_noise(denoiser: Denoiser, dataset: PairDataset) -> None:
    plain = errors_with(denoiser, dataset).reference_errors(DRAWS)
    weighted = errors_with(denoiser, dataset, error_weighting="noise").reference_errors(DRAWS)
    timesteps = torch.tensor(
        [
            compute_slot(dataset.pair_ids[draw.pair], draw.slot, num_slots=8, num_timesteps=1000, seed=0).timestep
            for draw in DRAWS
        ]
    )
    weights = denoiser.noise_error_weight(timesteps, LATENT_SHAPE[1:])
    torch.testing.assert_close(weighted, plain * weights[:, None])


@pytest.mark.parametrize(
    "changes", [{"error_weighting": "noise"}, {"timestep_sampling": "logit_normal"}, {"timestep_sampling": "mode"}]
)
def test_a_fresh_adapter_has_margin_zero_exactly_whatever_the_errors_are(
    changes: dict[str, str], denoiser: Denoiser, dataset: PairDataset
) -> None:
    attach(denoiser.module, SPEC, seed=0)
    assert (errors_with(denoiser, dataset, **changes).terms(DRAWS).margin(2000.0) == 0).all()


def test_references_of_other_errors_have_keys_of_their_own(denoiser: Denoiser, dataset: PairDataset) -> None:
    def key(**changes: Any) -> str:
        settings = FAST.model_copy(update=changes)
        return numerics_key(denoiser, dataset, settings, base_fingerprint="base", micro_pairs=4)

    others = [
        key(error_weighting="noise"),
        key(timestep_sampling="mode"),
        key(timestep_sampling="logit_normal"),
        key(timestep_sampling="logit_normal", timestep_mean=0.5),
        key(timestep_sampling="logit_normal", timestep_scale=0.5),
    ]
    assert len({key(), *others}) == 6
    assert key(timestep_mean=0.5) == key(), "even slots have no mean"


def test_a_round_with_other_noise_levels_is_published(studio: TrainingStudio, denoiser: Denoiser) -> None:
    studio.add_pairs(6)
    studio.vote(6)
    settings = FAST.model_copy(update={"timestep_sampling": "logit_normal", "num_steps": 2})
    round_id, token = studio.start(settings=settings)
    assert studio.run(denoiser, round_id, token) is SliceOutcome.FINISHED


def test_activations_are_computed_twice_from_the_first_step_where_that_is_set(
    studio: TrainingStudio, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def noting(*arguments: Any, **named: Any) -> StepResult:
        seen.append(denoiser.module.is_gradient_checkpointing)
        return train_step(*arguments, **named)

    monkeypatch.setattr(trainer, "train_step", noting)
    studio.add_pairs(6)
    studio.vote(6)
    settings = RoundSettings.model_validate({**FAST.model_dump(), "gradient_checkpointing": "on", "num_steps": 2})
    round_id, token = studio.start(settings=settings)
    studio.run(denoiser, round_id, token)
    assert seen == [True, True]
    assert not denoiser.module.is_gradient_checkpointing


def test_where_it_is_off_a_single_pair_that_does_not_fit_fails_and_says_so(
    studio: TrainingStudio, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_fits(*_: Any, **__: Any) -> NoReturn:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "train_step", nothing_fits)
    studio.add_pairs(6)
    studio.vote(6)
    round_id, token = studio.start(settings=FAST.model_copy(update={"gradient_checkpointing": "off"}))
    with pytest.raises(RoundFailedError, match="GRADIENT_CHECKPOINTING=auto"):
        studio.run(denoiser, round_id, token)
    assert not denoiser.module.is_gradient_checkpointing

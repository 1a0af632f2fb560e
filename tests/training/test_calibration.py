"""beta from the data."""

from dataclasses import replace

import pytest
import torch

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.errors import RoundFailedError, SetupError
from dmpo_app.settings import RoundSettings
from dmpo_app.training.data.dataset import PairDataset, build_dataset
from dmpo_app.training.data.training_examples import Example, evaluation_slots
from dmpo_app.training.reference.calibration import MARGIN_SPREAD, calibrate_betas, error_spread
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.reference_cache import ReferenceCache
from tests.training.training_studio import TrainingStudio

SETTINGS = RoundSettings(batch_pairs=4, slots_per_pair=8)


@pytest.fixture
def dataset(studio: TrainingStudio) -> PairDataset:
    studio.add_pairs(6)
    studio.vote(6)
    return build_dataset(studio.store.votes.training_votes(studio.base), studio.store.files, alpha=0.05)


def errors_of(denoiser: Denoiser, dataset: PairDataset) -> PairErrors:
    return PairErrors(denoiser, dataset, ReferenceCache(), num_slots=8, slot_seed=0)


def test_the_usual_difference_of_errors_comes_out_as_wide_as_wanted(denoiser: Denoiser, dataset: PairDataset) -> None:
    errors = errors_of(denoiser, dataset)
    found = calibrate_betas(SETTINGS, errors)
    draws = [Example(pair, slot) for pair in range(6) for slot in evaluation_slots(8)]
    batches = [errors.reference_errors(draws[start : start + 4]) for start in range(0, len(draws), 4)]
    spread = (0.5 * (found.beta or 0) * (torch.cat(batches)[:, 0] - torch.cat(batches)[:, 1])).abs().mean()
    assert spread.item() == pytest.approx(MARGIN_SPREAD, rel=0.01)
    assert found.margin_beta == found.beta


def test_a_beta_that_is_set_holds_and_is_the_margins_too_where_the_objective_aims_at_log_odds(
    denoiser: Denoiser, dataset: PairDataset
) -> None:
    errors = errors_of(denoiser, dataset)
    usual = calibrate_betas(SETTINGS, errors).margin_beta
    dmpo = calibrate_betas(SETTINGS.model_copy(update={"beta": 70.0}), errors)
    assert (dmpo.beta, dmpo.margin_beta) == (70.0, 70.0)
    dspo = calibrate_betas(SETTINGS.model_copy(update={"objective": "dspo", "beta": 0.001}), errors)
    assert (dspo.beta, dspo.margin_beta) == (0.001, usual)


def test_a_scale_multiplies_what_is_found_and_leaves_the_margins_that_are_reported(
    denoiser: Denoiser, dataset: PairDataset
) -> None:
    errors = errors_of(denoiser, dataset)
    usual = calibrate_betas(SETTINGS, errors)
    scaled = calibrate_betas(SETTINGS.model_copy(update={"beta_scale": 0.25}), errors)
    assert scaled.beta == pytest.approx((usual.beta or 0) / 4, rel=0.01)
    assert scaled.margin_beta == usual.margin_beta


def test_the_last_batch_is_filled_up_and_changes_nothing(denoiser: Denoiser, dataset: PairDataset) -> None:
    one, other = (error_spread(errors_of(denoiser, dataset), num_slots=8, micro_pairs=size) for size in (4, 5))
    assert one == pytest.approx(other, rel=1e-4)


def test_pairs_of_one_image_have_no_beta(denoiser: Denoiser, dataset: PairDataset) -> None:
    same = replace(dataset, files=tuple(replace(files, latents_b=files.latents_a) for files in dataset.files))
    with pytest.raises(RoundFailedError, match="DMPO_ROUND__BETA"):
        calibrate_betas(SETTINGS, errors_of(denoiser, same))


def test_an_unknown_objective_is_refused_with_the_setting_and_what_there_is(
    denoiser: Denoiser, dataset: PairDataset
) -> None:
    with pytest.raises(SetupError, match="DMPO_ROUND__OBJECTIVE='ppo'"):
        calibrate_betas(SETTINGS.model_copy(update={"objective": "ppo"}), errors_of(denoiser, dataset))

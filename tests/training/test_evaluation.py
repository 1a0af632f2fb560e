"""The yardstick: held-out votes that choose the step of a round."""

import pytest
import torch

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.components import UNET_ATTENTION
from dmpo_app.diffusion.lora import LoraSpec, attach
from dmpo_app.objective import dmpo, soft_target
from dmpo_app.training.data.dataset import build_dataset
from dmpo_app.training.monitoring.evaluation import evaluate, evaluate_base, voted_probability
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.reference_cache import ReferenceCache
from tests.training.training_studio import TrainingStudio


def test_a_model_that_is_its_reference_gives_the_voted_side_exactly_one_half() -> None:
    shares = torch.tensor([1.0, 0.0, 0.5, 2 / 3, 0.1])
    assert voted_probability(torch.zeros(5), shares).tolist() == [0.5] * 5


def test_swapping_the_images_of_every_pair_changes_nothing() -> None:
    margins, shares = torch.randn(50, generator=torch.manual_seed(0)) * 3, torch.tensor([1.0, 0.0, 0.5, 0.75, 1.0] * 10)
    torch.testing.assert_close(voted_probability(-margins, 1 - shares), voted_probability(margins, shares))


def test_several_votes_on_a_pair_are_the_mean_of_single_ones_and_a_tie_is_no_ones() -> None:
    for_a, for_b, tie = voted_probability(torch.full((3,), 1.7), torch.tensor([1.0, 0.0, 0.5]))
    assert tie == 0.5
    two_to_one = voted_probability(torch.tensor(1.7), torch.tensor(2 / 3))
    torch.testing.assert_close(two_to_one, (2 * for_a + for_b) / 3)


def test_votes_turned_round_draw_every_model_to_one_half_and_keep_their_order() -> None:
    right, wrong_share = torch.tensor([1.0, 0.0, 1.0, 0.0]), 0.3
    better, worse = torch.tensor([0.5, -0.5, 0.5, 0.1]), torch.tensor([6.0, 6.0, 6.0, -6.0])
    for margins in (better, worse):
        clean = voted_probability(margins, right).mean()
        # The expectation over votes that are each turned round with probability w.
        noisy = voted_probability(margins, right * (1 - wrong_share) + (1 - right) * wrong_share).mean()
        torch.testing.assert_close(noisy - 0.5, (1 - 2 * wrong_share) * (clean - 0.5))


def test_the_yardstick_prefers_right_margins_where_the_loss_prefers_small_ones() -> None:
    """Seven of ten votes on the side of large margins: the loss would rather have no margins at all."""
    margins, shares = torch.full((10,), 6.0), torch.tensor([1.0] * 7 + [0.0] * 3)
    targets = soft_target(shares, torch.ones(10), alpha=0.05)
    assert dmpo(margins, targets).mean() > dmpo(torch.zeros(10), targets).mean()
    assert voted_probability(margins, shares).mean() > voted_probability(torch.zeros(10), shares).mean()


def test_a_fresh_adapter_is_judged_exactly_like_the_base_model(studio: TrainingStudio, denoiser: Denoiser) -> None:
    studio.add_pairs(5)
    studio.vote(5)
    dataset = build_dataset(studio.store.votes.training_votes(studio.base), studio.store.files, alpha=0.05)
    errors = PairErrors(denoiser, dataset, ReferenceCache(), num_slots=8, slot_seed=0)
    base = evaluate_base(errors)
    attach(denoiser.module, LoraSpec(2, 4.0, UNET_ATTENTION), seed=0)
    fresh = evaluate(errors, beta=500.0, num_slots=8, micro_pairs=3)  # 20 draws: the last batch is filled up
    assert fresh.margins == (0.0,) * 5
    assert base.margins == fresh.margins
    assert (fresh.loss, fresh.agreement) == (base.loss, base.agreement)
    assert fresh.voted_probability == base.voted_probability == 0.5
    assert fresh.loss == pytest.approx(0.830, abs=1e-3)
    assert fresh.agreement.accuracy == 0.5

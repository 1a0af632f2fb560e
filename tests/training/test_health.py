"""Health metrics of a round: gains, the share past the target, the adapter's norm."""

import math

import pytest
import torch

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.components import UNET_WIDE
from dmpo_app.diffusion.fused_lora import lora_layers
from dmpo_app.diffusion.lora import LoraSpec, attach
from dmpo_app.objective import OBJECTIVES, PairTerms
from dmpo_app.training.loop.step import PreferenceLoss
from dmpo_app.training.monitoring.early_stopping import PairHealth, adapter_norm, num_outputs, pair_health
from tests.training.training_studio import FAST, TrainingStudio

SPEC = LoraSpec(rank=2, lora_alpha=4.0, target_modules=UNET_WIDE)


def terms_of(policy: list[list[float]], reference: list[list[float]], targets: list[float]) -> PairTerms:
    (policy_a, policy_b), (reference_a, reference_b) = torch.tensor(policy), torch.tensor(reference)
    return PairTerms(policy_a, policy_b, reference_a, reference_b, torch.tensor(targets))


def test_gains_are_of_the_side_the_votes_take_and_ties_do_not_count() -> None:
    # Image a wins the first pair, image b the second; the third is a tie.
    terms = terms_of([[0.3, 0.7, 9.0], [0.6, 0.4, 9.0]], [[0.5, 0.5, 1.0], [0.5, 0.5, 1.0]], [0.95, 0.05, 0.5])
    health = pair_health(terms, terms.margin(10.0))
    assert health.num_decided == 2
    assert health.chosen_gain == pytest.approx((0.2 + 0.1) / 2)
    assert health.rejected_gain == pytest.approx((-0.1 - 0.2) / 2)
    assert health.chosen_gain_share == pytest.approx(0.15 / 0.5)


def test_past_the_target_are_margins_beyond_the_log_odds_on_the_voters_side() -> None:
    wanted = math.log(0.95 / 0.05)
    terms = terms_of([[0.5] * 4] * 2, [[0.5] * 4] * 2, [0.95, 0.95, 0.05, 0.05])
    margins = torch.tensor([wanted + 0.01, wanted - 0.01, -wanted - 0.01, wanted + 5])
    assert pair_health(terms, margins).past_target == 0.5


def test_batches_add_up() -> None:
    whole = terms_of([[0.3, 0.7], [0.6, 0.4]], [[0.5, 0.5], [0.5, 0.5]], [0.95, 0.05])
    pieces = [terms_of([[a], [b]], [[0.5], [0.5]], [q]) for a, b, q in ((0.3, 0.6, 0.95), (0.7, 0.4, 0.05))]
    summed = sum((pair_health(piece, piece.margin(10.0)) for piece in pieces), PairHealth())
    assert summed.chosen_gain == pytest.approx(pair_health(whole, whole.margin(10.0)).chosen_gain)
    assert summed.num_past == pair_health(whole, whole.margin(10.0)).num_past


def test_no_pairs_have_no_gain() -> None:
    assert (PairHealth().chosen_gain, PairHealth().chosen_gain_share, PairHealth().past_target) == (0, 0, 0)


def test_the_adapters_norm_is_that_of_the_update_written_out(denoiser: Denoiser) -> None:
    parameters = attach(denoiser.module, SPEC, seed=0)
    assert adapter_norm(parameters, scaling=SPEC.scaling) == 0
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    layers = lora_layers(denoiser.module).values()
    updates = [layer.get_delta_weight("studio").detach().double() for layer in layers]
    dense = math.sqrt(sum(float(update.square().sum()) for update in updates))
    assert {update.ndim for update in updates} == {2, 4}, "linear layers and convolutions"
    assert adapter_norm(parameters, scaling=SPEC.scaling) == pytest.approx(dense, rel=1e-5)
    assert num_outputs(parameters) == sum(len(update) for update in updates)


def test_the_first_step_sees_a_fresh_adapter_without_gains_and_records_what_is_watched(
    studio: TrainingStudio, denoiser: Denoiser
) -> None:
    studio.add_pairs(8)
    studio.vote(8)
    round_id, token = studio.start(settings=FAST.model_copy(update={"health_images": 4}))
    studio.run(denoiser, round_id, token)
    points = studio.store.rounds.list_progress(round_id)
    first, last = points[0].health, points[-1].health
    assert first["chosen_gain"] == first["rejected_gain"] == first["past_target"] == 0
    assert first["grad_norm"] > 0
    assert 0 < first["adapter_norm"] < last["adapter_norm"]
    assert last["adapter_rms"] < last["adapter_norm"]
    looks = [point.step for point in points if {"saturation", "diversity"} & point.health.keys()]
    assert set(looks) <= {2, 4, 6}


def test_a_loss_settings_margin_scale_decides_who_is_past_the_target() -> None:
    terms = terms_of([[0.49], [0.51]], [[0.5], [0.5]], [0.95])
    small, large = (PreferenceLoss(OBJECTIVES["dmpo"], beta=b, margin_beta=b, options={}) for b in (10.0, 10_000.0))
    assert pair_health(terms, terms.margin(small.margin_beta)).past_target == 0
    assert pair_health(terms, terms.margin(large.margin_beta)).past_target == 1

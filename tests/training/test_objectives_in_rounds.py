"""Every objective trains a whole round, with and without the winner-preserving guard."""

import pytest
import torch

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.components import UNET_ATTENTION, UNET_WIDE
from dmpo_app.diffusion.lora import LoraSpec, attach
from dmpo_app.domain.lineage import RoundStatus
from dmpo_app.objective import OBJECTIVES, Needs
from dmpo_app.training.data.dataset import build_dataset
from dmpo_app.training.data.training_examples import examples_for_step
from dmpo_app.training.loop.optimizers import make_optimizer
from dmpo_app.training.loop.step import PreferenceLoss, train_step
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.reference_cache import ReferenceCache
from tests.training.training_studio import FAST, TrainingStudio

BETAS = {"dspo": 0.001}


@pytest.fixture
def voted(studio: TrainingStudio) -> TrainingStudio:
    studio.add_pairs(12)
    studio.vote(12)
    return studio


@pytest.mark.parametrize("guard", [None, 0.6])
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_a_round_publishes_under_any_objective(
    voted: TrainingStudio, denoiser: Denoiser, name: str, guard: float | None
) -> None:
    own = {"objective": name, "winner_guard": guard, "beta": BETAS.get(name, 500.0), "margin_beta": 500.0}
    settings = FAST.model_copy(update={**own, "num_steps": 2})
    round_id, token = voted.start(settings=settings)
    voted.run(denoiser, round_id, token)
    state = voted.store.rounds.get(round_id)
    assert state.status is RoundStatus.PUBLISHED
    assert state.config["settings"]["objective"] == name


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_ten_steps_lower_any_objectives_loss_and_move_only_the_adapter(
    voted: TrainingStudio, denoiser: Denoiser, name: str
) -> None:
    dataset = build_dataset(voted.store.votes.training_votes(voted.base), voted.store.files, alpha=0.05)
    errors = PairErrors(denoiser, dataset, ReferenceCache(), num_slots=4, slot_seed=0)
    frozen = {key: value.clone() for key, value in denoiser.module.state_dict().items()}
    parameters = attach(denoiser.module, LoraSpec(4, 4.0, UNET_WIDE), seed=0)
    optimizer = make_optimizer(parameters, learning_rate=3e-3)
    loss_of = PreferenceLoss(OBJECTIVES[name], beta=BETAS.get(name, 200.0), margin_beta=200.0, options={})
    draws = examples_for_step(0, num_pairs=12, batch_pairs=8, num_slots=4, seed=0)
    losses = [
        train_step(errors, draws, parameters, optimizer, loss_of, max_grad_norm=1.0, micro_pairs=8).loss
        for _ in range(10)
    ]
    assert losses[-1] < losses[0]
    after = {key.replace(".base_layer", ""): value for key, value in denoiser.module.state_dict().items()}
    assert all(torch.equal(value, after[key]) for key, value in frozen.items())


def test_only_an_objective_that_asks_for_predictions_pays_for_a_pass_of_the_base_model(
    voted: TrainingStudio, denoiser: Denoiser
) -> None:
    dataset = build_dataset(voted.store.votes.training_votes(voted.base), voted.store.files, alpha=0.05)
    errors = PairErrors(denoiser, dataset, ReferenceCache(), num_slots=4, slot_seed=0)
    attach(denoiser.module, LoraSpec(2, 2.0, UNET_ATTENTION), seed=0)
    passes = 0

    def note(*_: object) -> None:
        nonlocal passes
        passes += 1

    denoiser.module.register_forward_hook(note)
    draws = examples_for_step(0, num_pairs=12, batch_pairs=4, num_slots=4, seed=0)
    counts = {}
    for needs in (Needs.ERRORS, Needs.NOTHING, Needs.PREDICTIONS):
        errors.terms(draws, needs=needs)
        passes = 0
        errors.terms(draws, needs=needs)
        counts[needs] = passes
    assert counts == {Needs.ERRORS: 1, Needs.NOTHING: 1, Needs.PREDICTIONS: 2}

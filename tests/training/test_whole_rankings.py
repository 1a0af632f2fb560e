"""Rankings learnt from as wholes: kept together in batches, asked for what people said, trained to the bit alike."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.components import UNET_WIDE
from dmpo_app.diffusion.lora import LoraSpec, attach
from dmpo_app.domain.lineage import RoundStatus, TrainingVote
from dmpo_app.domain.vote import Outcome
from dmpo_app.errors import RoundFailedError
from dmpo_app.objective import OBJECTIVES, ranking_dmpo, ranking_target, soft_target
from dmpo_app.settings import RoundSettings
from dmpo_app.store.files import Files
from dmpo_app.training.data.dataset import PairDataset, build_dataset
from dmpo_app.training.data.training_examples import Example, WholeRankings, examples_for_step
from dmpo_app.training.distributed.process_group import ProcessGroup
from dmpo_app.training.loop.optimizers import make_optimizer
from dmpo_app.training.loop.step import PreferenceLoss, train_step
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.reference_cache import ReferenceCache
from dmpo_app.training.rounds.round_plan import load_plan
from dmpo_app.training.rounds.round_runner import SliceOutcome
from tests.training.training_studio import FAST, TrainingStudio, assert_equal, only_single_pairs_fit, weights_of

ALPHA = 0.05
LOG_ODDS = math.log((1 - ALPHA) / ALPHA)
PAIR = TrainingVote(1, 7, 1, "a fox", Outcome.A, "a", "b", "embeds")
THREE = replace(PAIR, vote_id=2, pair_id=8, ranking="cab", more_latents=("c",))
FOUR = replace(PAIR, vote_id=3, pair_id=9, ranking="dcab", more_latents=("c", "d"))
BETA = 500.0
LISTWISE = FAST.model_copy(update={"rankings": "listwise"})
ONE_STEP = 0.0


def dataset_of(tmp_path: Path, *votes: TrainingVote, weights: dict[int, float] | None = None) -> PairDataset:
    return build_dataset(
        votes,
        Files(tmp_path),
        alpha=ALPHA,
        annotator_weight=lambda annotator: (weights or {}).get(annotator, 1.0),
        learn_whole_rankings=True,
    )


def errors_of(studio: TrainingStudio, denoiser: Denoiser) -> PairErrors:
    votes = studio.store.votes.training_votes(studio.base)
    dataset = build_dataset(votes, studio.store.files, alpha=ALPHA, learn_whole_rankings=True)
    return PairErrors(denoiser, dataset, ReferenceCache(), num_slots=8, slot_seed=0)


def draws_of(data: PairDataset, step: int, batch_pairs: int = 8) -> list[Example]:
    return data.rankings.examples_for_step(step, num_pairs=len(data), batch_pairs=batch_pairs, num_slots=8, seed=1)


def dmpo_with(beta: float) -> PreferenceLoss:
    return PreferenceLoss(OBJECTIVES["dmpo"], beta=beta, margin_beta=beta, options={})


def make_different(parameters: dict[str, torch.nn.Parameter]) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("vote", [THREE, FOUR])
def test_a_ranking_is_the_pairs_of_its_neighbours_and_asks_for_its_order(tmp_path: Path, vote: TrainingVote) -> None:
    data = dataset_of(tmp_path, vote)
    assert vote.ranking is not None
    size = len(vote.ranking)
    (chain,) = data.rankings.chains
    assert [(data.files[link].latents_a, data.files[link].latents_b) for link in chain] == list(
        zip("abcd"[: size - 1], "abcd"[1:size], strict=True)
    )
    (target,) = data.rankings.targets
    assert sorted(range(size), key=lambda image: -target[image]) == ["abcd".index(letter) for letter in vote.ranking]
    best, second = ("abcd".index(letter) for letter in vote.ranking[:2])
    assert math.log(target[best] / target[second]) == pytest.approx(LOG_ODDS)
    assert data.weights[list(chain)].tolist() == [1.0] + [0.0] * (size - 2), "one vote"


def test_people_who_disagree_are_met_in_the_middle_and_weighed(tmp_path: Path) -> None:
    against = replace(THREE, vote_id=5, annotator_id=2, ranking="bac")
    even = dataset_of(tmp_path, THREE, against)
    ranks = torch.tensor([[-1.0, -1.0, -1.0]])  # a 1 and 1, b 2 and 0, c 0 and 2
    torch.testing.assert_close(torch.tensor(even.rankings.targets), ranking_target(ranks, temperature=1 / LOG_ODDS))
    assert float(even.weights.sum()) == 2.0
    uneven = dataset_of(tmp_path, THREE, against, weights={2: 0.25})
    ranks = torch.tensor([[-1.0, -1.6, -0.4]])
    torch.testing.assert_close(torch.tensor(uneven.rankings.targets), ranking_target(ranks, temperature=1 / LOG_ODDS))
    assert float(uneven.weights.sum()) == 1.25
    [target] = build_dataset([THREE], Files(tmp_path), alpha=0.5, learn_whole_rankings=True).rankings.targets
    assert target == pytest.approx((1 / 3, 1 / 3, 1 / 3)), "at alpha 1/2 no order asks for anything"


def test_a_chain_has_a_block_to_itself_in_one_slot_and_a_pass_has_everything_once(tmp_path: Path) -> None:
    pairs = [replace(PAIR, vote_id=10 + n, pair_id=20 + n) for n in range(6)]
    data = dataset_of(tmp_path, THREE, FOUR, *pairs)
    rankings = data.rankings
    assert rankings.block == 4
    num_blocks = 4  # two of rankings, two of pairs
    for turn in range(5):
        drawn = [draw for block in range(num_blocks) for draw in draws_of(data, turn * num_blocks + block, 7)]
        assert len(drawn) == 4 * num_blocks
        assert Counter(draw.pair for draw in drawn if not draw.is_padding) == Counter(range(len(data)))
        blocks = [drawn[start : start + 4] for start in range(0, len(drawn), 4)]
        for chain in rankings.chains:
            (block,) = [block for block in blocks if block[0].pair == chain[0]]
            assert tuple(draw.pair for draw in block if not draw.is_padding) == chain
            assert len({draw.slot for draw in block}) == 1
    many = [draw.slot for step in range(8 * num_blocks) for draw in draws_of(data, step, 4)[:1]]
    assert set(Counter(many).values()) == {num_blocks}, "the noise levels of rankings are spread evenly"


@pytest.mark.parametrize(("lengths", "block"), [([], 1), ([2, 2], 2), ([3], 4), ([2, 3], 4)])
def test_a_block_holds_the_longest_chain(lengths: list[int], block: int) -> None:
    assert WholeRankings(chains=tuple(tuple(range(length)) for length in lengths)).block == block


def test_blocks_are_dealt_out_whole_to_pieces_and_processes(tmp_path: Path) -> None:
    class OneOfThree(ProcessGroup):
        world_size = 3

    data = dataset_of(tmp_path, THREE, FOUR)
    assert data.rankings.examples_per_step(11) == 8
    parts = []
    for rank in range(3):
        group = OneOfThree()
        group.process_rank = rank
        parts.append(group.shard(8, block=4))
    assert parts == [range(4), range(4, 8), range(8, 12)]
    with pytest.raises(RoundFailedError, match="BATCH_PAIRS to at least 4"):
        data.rankings.examples_per_step(3)


def test_without_rankings_the_draws_are_what_they_always_were(tmp_path: Path) -> None:
    data = dataset_of(tmp_path, *(replace(PAIR, vote_id=n, pair_id=n) for n in range(1, 8)))
    assert data.rankings.block == 1
    for step in range(9):
        old = examples_for_step(step, num_pairs=7, batch_pairs=5, num_slots=8, seed=1)
        assert draws_of(data, step, 5) == old
    torch.testing.assert_close(data.targets, soft_target(torch.ones(7), torch.ones(7), alpha=ALPHA))


@pytest.mark.parametrize("size", [3, 4])
def test_the_loss_of_a_ranking_is_that_of_its_images_errors(
    studio: TrainingStudio, denoiser: Denoiser, size: int
) -> None:
    studio.add_sets(1, size)
    studio.rank(1, size)
    make_different(attach(denoiser.module, LoraSpec(2, 4.0, UNET_WIDE), seed=0))
    errors = errors_of(studio, denoiser)
    draws = draws_of(errors.dataset, 0, errors.dataset.rankings.block)
    terms = errors.terms(draws)
    links = range(size - 1)
    policy, reference = (
        torch.stack([*of_a[list(links)], of_b[size - 2]])[None]
        for of_a, of_b in ((terms.policy_a, terms.policy_b), (terms.reference_a, terms.reference_b))
    )
    torch.testing.assert_close(terms.policy_b[: size - 2], terms.policy_a[1 : size - 1])  # one image, one noise
    wanted = ranking_dmpo(policy, reference, torch.tensor(errors.dataset.rankings.targets), beta=BETA)
    found = dmpo_with(BETA)(terms, errors.dataset.rankings.rankings_in(draws))
    torch.testing.assert_close(found[:1], wanted, rtol=1e-4, atol=1e-5)
    assert (found[1 : size - 1] == 0).all()


def test_a_batch_in_pieces_takes_the_same_step_and_fillers_count_nowhere(
    studio: TrainingStudio, denoiser: Denoiser
) -> None:
    studio.add_sets(1, 4)
    studio.rank(1, 4)
    studio.add_pairs(1)
    studio.vote(1)
    states, results = [], []
    for micro_pairs in (8, 4):
        parameters = attach(denoiser.module, LoraSpec(2, 4.0, UNET_WIDE), seed=0)
        make_different(parameters)
        errors = errors_of(studio, denoiser)
        optimizer = torch.optim.SGD(list(parameters.values()), lr=1e-3)
        draws = draws_of(errors.dataset, 0)
        results.append(
            train_step(
                errors, draws, parameters, optimizer, dmpo_with(50.0), max_grad_norm=1e9, micro_pairs=micro_pairs
            )
        )
        states.append([parameter.detach().clone() for parameter in parameters.values()])
    for whole, in_pieces in zip(*states, strict=True):
        torch.testing.assert_close(whole, in_pieces, rtol=1e-4, atol=1e-6)
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-4)
    assert [result.agreement.num_decided for result in results] == [4, 4], "three links and a pair, of eight draws"
    assert [result.pairs.num_decided for result in results] == [4, 4]


def test_training_on_rankings_lowers_their_loss_and_moves_margins_to_the_peoples_side(
    studio: TrainingStudio, denoiser: Denoiser
) -> None:
    studio.add_sets(4, 3)
    studio.rank(4, 3)
    errors = errors_of(studio, denoiser)
    parameters = attach(denoiser.module, LoraSpec(2, 4.0, UNET_WIDE), seed=0)
    optimizer = make_optimizer(parameters, learning_rate=3e-3)
    results = [
        train_step(
            errors,
            draws_of(errors.dataset, step),
            parameters,
            optimizer,
            dmpo_with(200.0),
            max_grad_norm=1.0,
            micro_pairs=8,
        )
        for step in range(20)
    ]
    assert results[0].agreement.margin == 0
    assert sum(result.loss for result in results[-4:]) < sum(result.loss for result in results[:4])
    assert sum(result.agreement.margin for result in results[-4:]) > 0
    assert sum(result.pairs.chosen_gain - result.pairs.rejected_gain for result in results[-4:]) > 0


def mixed(home: Path, source: Path) -> TrainingStudio:
    """Pairs, sets of three and of four; two people disagree about some sets."""
    studio = TrainingStudio.open(home, source)
    studio.add_pairs(5)
    studio.vote(5)
    for size in (3, 4):
        studio.add_sets(3, size)
        studio.rank(3, size)
        studio.rank(2, size, "bacd", handle="another")
    return studio


def test_a_mixed_round_is_the_same_to_the_bit_from_the_same_seed_in_one_go_and_in_slices(
    tiny_model: Path, denoiser: Denoiser, tmp_path: Path
) -> None:
    homes = [mixed(tmp_path / name, tiny_model) for name in ("one", "two")]
    settings = LISTWISE.model_copy(update={"num_steps": 4, "evaluate_every": 4})
    for studio, slices in zip(homes, ([600.0], [ONE_STEP] * settings.num_steps), strict=True):
        round_id, token = studio.start(settings=settings)
        assert studio.run(denoiser, round_id, token, slices=slices) is SliceOutcome.FINISHED
        assert studio.store.rounds.get(round_id).status is RoundStatus.PUBLISHED
    assert_equal(weights_of(homes[0]), weights_of(homes[1]))
    for studio in homes:
        studio.store.close()


def test_settings_say_whether_a_round_takes_rankings_whole_and_what_judges_it_is_always_pairs(
    tiny_model: Path, tmp_path: Path
) -> None:
    studio = mixed(tmp_path / "home", tiny_model)
    round_id, _ = studio.start(settings=FAST.model_copy(update={"held_out_share": 0.5}))
    state = studio.store.rounds.get(round_id)
    ranked = {vote.pair_id for vote in studio.store.votes.training_votes(studio.base) if vote.ranking}
    keys = set()
    for changed, whole in (({}, True), ({"rankings": "pairs"}, False), ({"objective": "ipo"}, False)):
        settings = {**state.config["settings"], **changed}
        plan = load_plan(studio.store, studio.base, replace(state, config={**state.config, "settings": settings}))
        keys.add(plan.key)
        assert plan.held_out is not None
        trained, judging = (ranked & set(data.pair_ids) for data in (plan.train, plan.held_out))
        assert len(trained) + len(judging) == 6
        assert judging
        assert len(plan.train.rankings.chains) == (len(trained) if whole else 0)
        assert plan.held_out.rankings.chains == ()
    assert len(keys) == 3
    studio.store.close()


@pytest.mark.parametrize("other", [{"objective": "ipo"}, {"winner_guard": 0.5}])
def test_whole_rankings_are_refused_where_the_loss_is_not_plain_dmpo(other: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="rankings=listwise goes with objective=dmpo"):
        RoundSettings(rankings="listwise", **other)
    assert not RoundSettings(**other).learns_whole_rankings


def test_a_round_on_pairs_is_the_same_to_the_bit_whatever_is_said_of_rankings(
    studio: TrainingStudio, denoiser: Denoiser, tmp_path: Path
) -> None:
    twin = TrainingStudio.open(tmp_path / "twin", studio.source)
    for one, rankings in ((studio, "listwise"), (twin, "pairs")):
        one.add_pairs(6)
        one.vote(6)
        round_id, token = one.start(settings=FAST.model_copy(update={"rankings": rankings}))
        one.run(denoiser, round_id, token)
    assert_equal(weights_of(studio), weights_of(twin))
    twin.store.close()


def test_when_a_ranking_does_not_fit_into_memory_the_round_fails_with_what_to_do(
    studio: TrainingStudio, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = only_single_pairs_fit(monkeypatch)
    studio.add_sets(4, 3)
    studio.rank(4, 3)
    settings = {"batch_pairs": 7, "held_out_share": 0.0, "gradient_checkpointing": "off", "rankings": "auto"}
    round_id, token = studio.start(settings=FAST.model_copy(update=settings))
    with pytest.raises(RoundFailedError, match=r"2 pairs of a ranking.*DMPO_ROUND__RANKINGS=pairs"):
        studio.run(denoiser, round_id, token)
    assert sizes == [6, 2]

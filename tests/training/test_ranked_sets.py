from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch

from dmpo_app.domain.lineage import TrainingVote
from dmpo_app.domain.vote import Outcome
from dmpo_app.store.files import Files
from dmpo_app.training.data.dataset import build_dataset
from dmpo_app.training.data.training_examples import set_id_from_pair_id, split_rankings

PAIR = TrainingVote(1, 7, 1, "a fox", Outcome.A, "a", "b", "embeds")
SETS = {3: replace(PAIR, ranking="cab", more_latents=("c",)), 4: replace(PAIR, ranking="dcab", more_latents=("c", "d"))}


@pytest.mark.parametrize("size", SETS)
def test_a_ranking_is_every_pair_of_its_images_and_each_says_what_the_order_says(size: int) -> None:
    vote = SETS[size]
    pairs = list(split_rankings([vote]))
    assert {(pair.latents_a, pair.latents_b) for pair in pairs} == set(combinations("abcd"[:size], 2))
    for pair in pairs:
        winner = pair.latents_a if pair.outcome is Outcome.A else pair.latents_b
        loser = pair.latents_b if pair.outcome is Outcome.A else pair.latents_a
        assert vote.ranking is not None
        assert vote.ranking.index(winner) < vote.ranking.index(loser)
    assert len({pair.pair_id for pair in pairs}) == len(pairs)
    assert {set_id_from_pair_id(pair.pair_id) for pair in pairs} == {vote.pair_id}, "they share timesteps and noise"


@pytest.mark.parametrize("size", SETS)
def test_a_ranking_weighs_as_much_as_a_vote_on_a_pair_and_asks_for_the_same_firmness(tmp_path: Path, size: int) -> None:
    pair = build_dataset([PAIR], Files(tmp_path), alpha=0.05)
    ranked = build_dataset([SETS[size]], Files(tmp_path), alpha=0.05)
    assert float(pair.weights.sum()) == 1.0
    assert float(ranked.weights.sum()) == pytest.approx(1.0)
    assert torch.equal((ranked.targets - 0.5).abs(), (pair.targets - 0.5).abs().expand(len(ranked)))


def test_votes_on_pairs_go_through_unchanged() -> None:
    assert list(split_rankings([PAIR])) == [PAIR]
    assert set_id_from_pair_id(PAIR.pair_id) == PAIR.pair_id

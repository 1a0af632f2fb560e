import random
from typing import Any

import pytest

from dmpo_app.domain.vote import Candidate
from dmpo_app.labeling.strategies import STRATEGIES, assignment_rules
from dmpo_app.settings import LabelingSettings


def candidate(pair_id: int, **facts: Any) -> Candidate:
    return Candidate(**{"pair_id": pair_id, "prompt_id": 1, "adapter_version": 0, "num_taken": 0, **facts})


def order(name: str, *candidates: Candidate) -> list[int]:
    strategy = STRATEGIES[name](LabelingSettings())
    assert strategy is not None
    return [one.pair_id for one in strategy.order(candidates, random.Random(0))]


def test_the_least_certain_margin_comes_first_and_unknown_ones_last() -> None:
    pairs = [candidate(1), candidate(2, margin=-3.0), candidate(3, margin=0.5), candidate(4), candidate(5, margin=0.5)]
    assert order("uncertainty", *pairs) == [3, 5, 2, 1, 4]


def test_what_scorers_disagree_on_comes_first() -> None:
    agreeing, split = candidate(2, scores=(2.0, 2.1)), candidate(3, scores=(1.0, -1.0))
    assert order("scorers", candidate(1), agreeing, split) == [3, 2, 1]
    assert order("scorers", candidate(1, scores=(-2.0,)), candidate(2, scores=(0.1,))) == [2, 1]


def test_prompts_with_few_votes_come_first_and_take_turns() -> None:
    pairs = [
        candidate(1, prompt_id=1, prompt_votes=9),
        candidate(2, prompt_id=2),
        candidate(3, prompt_id=2),
        candidate(4, prompt_id=3),
    ]
    assert order("coverage", *pairs) == [2, 4, 3, 1]


def test_split_votes_come_before_those_that_all_agree_on_and_after_none() -> None:
    pairs = [candidate(1, wins=(3, 0, 0)), candidate(2, wins=(1, 1, 0)), candidate(3, wins=(2, 1, 0)), candidate(4)]
    assert order("ratings", *pairs) == [4, 2, 3, 1]


def test_random_is_another_order_of_the_same() -> None:
    pairs = [candidate(number) for number in range(20)]
    shuffled = order("random", *pairs)
    assert sorted(shuffled) == list(range(20)) != shuffled


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_can_be_set_and_loses_no_candidate(name: str) -> None:
    offering = assignment_rules(LabelingSettings.model_validate({"strategy": name}))
    pairs = [candidate(number) for number in range(5)]
    if offering.strategy is not None:
        assert sorted(one.pair_id for one in offering.strategy.order(pairs, random.Random(1))) == list(range(5))
    assert (offering.strategy is None) == (name == "fresh")

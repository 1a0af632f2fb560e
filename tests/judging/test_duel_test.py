import math
import random
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import duel_test as simulation
from dmpo_app.domain.judging import Judgement, Verdict
from dmpo_app.domain.vote import Question
from dmpo_app.judging.duel_test import (
    ALTERNATIVES,
    DEFAULT_RULES,
    STAKES,
    DuelBets,
    DuelRules,
    compare_by_duels,
    log_e_value,
)


def _judgements(wins: int, losses: int, *, ties: int = 0, annotators: int = 1, seed: int = 1) -> list[Judgement]:
    """Judgements of version 3 against version 2 in random order, each on a prompt of its own."""
    scores = [1.0] * wins + [0.0] * losses + [0.5] * ties
    random.Random(seed).shuffle(scores)
    return [Judgement(place % annotators, f"prompt {place}", 3, 2, score) for place, score in enumerate(scores)]


def _compare(judgements: list[Judgement], rules: DuelRules = DEFAULT_RULES):  # type: ignore[no-untyped-def]
    return compare_by_duels(judgements, candidate=3, other=2, rules=rules)


def test_the_money_of_a_fair_game_does_not_grow_on_average() -> None:
    """Over all outcomes of 12 judgements of any weights, the mean e-value is at most 1, and 1 at full weight."""
    outcomes = np.array([[1 if number >> place & 1 else -1 for place in range(12)] for number in range(2**12)])
    for weights in (np.ones(12), np.linspace(0.05, 1, 12), np.full(12, 0.3)):
        mean = np.exp(log_e_value(weights.sum(), outcomes @ weights)).mean()
        assert mean <= 1 + 1e-12
        assert mean == pytest.approx(1) or weights.min() < 1


def test_the_players_spread_all_their_money() -> None:
    assert sum(STAKES) == pytest.approx(1)
    assert min(ALTERNATIVES) > 0.5
    assert math.exp(float(log_e_value(0, 0))) == pytest.approx(1)


def test_a_sequence_is_tested_from_either_side_alike() -> None:
    judgements = _judgements(14, 5)
    test, mirrored = _compare(judgements), compare_by_duels(judgements, candidate=2, other=3)
    turned = [replace(one, version_a=2, version_b=3, score=1 - one.score) for one in judgements]
    assert (test.e_value_better, test.e_value_worse) == (mirrored.e_value_worse, mirrored.e_value_better)
    assert _compare(turned) == test


def test_ties_change_counts_but_no_evidence() -> None:
    without, with_ties = _compare(_judgements(14, 5)), _compare(_judgements(14, 5, ties=9))
    assert with_ties.e_value_better == pytest.approx(without.e_value_better)
    assert (with_ties.num_judgements, with_ties.num_ties, with_ties.num_preferring) == (28, 9, 14)


def test_the_sentence_says_how_many_and_how_many_more() -> None:
    test = _compare(_judgements(14, 5))
    assert test.verdict is Verdict.UNSURE
    assert test.sentence(3, 2) == "14 of 19 prefer version 3; about 18 more to be sure (one person's judgement)"


@pytest.mark.parametrize(
    ("wins", "losses", "verdict", "words"),
    [
        (32, 8, Verdict.BETTER, "32 of 40 prefer version 3; better than version 2 (one person's judgement)"),
        (8, 32, Verdict.WORSE, "8 of 40 prefer version 3; worse than version 2 (one person's judgement)"),
        (10, 10, Verdict.UNSURE, "10 of 20 prefer version 3; too close to tell (one person's judgement)"),
        (0, 0, Verdict.UNSURE, "nobody has judged version 3 against version 2 yet"),
    ],
)
def test_a_verdict_has_its_words(wins: int, losses: int, verdict: Verdict, words: str) -> None:
    test = _compare(_judgements(wins, losses))
    assert test.verdict is verdict
    assert test.sentence(3, 2) == words


def test_the_base_model_is_named() -> None:
    judgements = [replace(one, version_b=0) for one in _judgements(32, 8)]
    sentence = compare_by_duels(judgements, candidate=3, other=0).sentence(3, 0)
    assert "better than the base model" in sentence


def test_as_many_more_as_it_says_give_a_verdict() -> None:
    test = _compare(_judgements(20, 10))
    assert test.more_needed is not None
    assert 0 < test.more_needed < 100
    thirds = -(-(30 + test.more_needed) // 3)
    assert _compare(_judgements(2 * thirds, thirds)).verdict is Verdict.BETTER
    assert _compare(_judgements(2 * thirds - 4, thirds - 2)).verdict is Verdict.UNSURE


def test_only_the_two_versions_and_the_question_count() -> None:
    judgements = _judgements(14, 5)
    others = [replace(judgements[0], version_b=1), replace(judgements[0], question=Question.FIT)]
    assert _compare(judgements + others) == _compare(judgements)


def test_a_judgement_that_was_taken_back_is_as_if_it_had_not_been_given() -> None:
    judgements = _judgements(14, 5)
    assert _compare(judgements[:7] + judgements[8:]).num_judgements == 18


def test_an_annotator_who_repeats_themselves_weighs_a_few_judgements() -> None:
    judges = [Judgement(one, f"prompt {one}", 3, 2, float(one % 2)) for one in range(40)]
    flood = [Judgement(1000, f"flood {place}", 3, 2, 1.0) for place in range(2000)]
    test = _compare(judges + flood)
    assert test.is_capped
    assert test.verdict is Verdict.UNSURE
    assert test.e_value_better < 2
    assert _compare(flood).verdict is Verdict.BETTER, "alone, it is one person's judgement, and says so"


def test_nobody_in_a_crowd_weighs_more_than_the_cap() -> None:
    bets = DuelBets(is_crowd=True, share_limit=0.05)
    rng = random.Random(3)
    for place in range(1500):
        annotator = 0 if rng.random() < 0.5 else rng.randrange(60)
        bets.add(annotator, f"prompt {place}", rng.choice((-1.0, 1.0)))
    plain, capped = bets.states(0.05)
    weights = np.array([cluster.weight for cluster in bets._annotators.by_key.values()])
    assert plain[0] == pytest.approx(weights.sum())
    assert weights.max() <= 1 + 0.05 * plain[0], "their share when they judge, beyond a first judgement"
    level = np.sort(weights)[-2]
    lowered = weights - (plain[0] - capped[0]) * (weights == weights.max())
    assert lowered.max() <= max(level, 0.05 * capped[0] + 1e-9)


def test_the_twentieth_annotator_makes_it_the_judgement_of_people_in_general() -> None:
    assert not _compare(_judgements(30, 8, annotators=19)).is_capped
    crowd = _compare(_judgements(30, 8, annotators=20))
    assert crowd.is_capped
    assert "people's judgement" not in crowd.sentence(3, 2)
    assert "(19 people's judgement)" in _compare(_judgements(30, 8, annotators=19)).sentence(3, 2)


def test_a_prompt_that_always_wins_is_not_forty_wins() -> None:
    one_prompt = [Judgement(1, "the same", 3, 2, 1.0) for _ in range(40)]
    many = [Judgement(1, f"prompt {place}", 3, 2, 1.0) for place in range(40)]
    assert _compare(one_prompt).verdict is Verdict.UNSURE
    assert _compare(many).verdict is Verdict.BETTER


@pytest.mark.parametrize("is_crowd", [False, True])
def test_the_simulated_bets_are_those_of_the_studio(is_crowd: bool) -> None:
    case = simulation.Case("", 25, 8, simulation.camps(0.3), simulation.uniform, ties=0.2)
    x, annotator, prompt = case.sample(np.random.default_rng(2), 3, 120)
    *_, (weights, balances) = simulation.weigh(x, annotator, prompt, is_crowd=is_crowd, share_limit=0.05)
    for test in range(3):
        bets = DuelBets(is_crowd, 0.05)
        for answer, who, what in zip(x[test], annotator[test], prompt[test], strict=True):
            if answer != 0:
                bets.add(int(who), str(what), float(answer))
        assert (bets.weight, bets.balance) == pytest.approx((weights[test], balances[test]))


@pytest.mark.parametrize(
    "case",
    [
        simulation.Case("independent", fresh=True),
        simulation.Case("camps", 30, 20, simulation.camps(0.5), simulation.normal(0.2)),
        simulation.Case("hostile", 40, 100, hostile_share=0.3),
    ],
    ids=lambda case: case.name,
)
def test_nothing_is_promoted_that_nobody_prefers(case: simulation.Case) -> None:
    """200 tests looked at after each of 150 judgements: at the level of 2.5 % on a side, 12 wrong ones are far off."""
    tests = simulation.run_tests(*case.sample(np.random.default_rng(11), 200, 150))
    assert (tests.verdict == 1).sum() <= 12
    assert (tests.verdict == -1).sum() <= 12


def test_seven_of_ten_are_proven_within_fifty_judgements() -> None:
    case = simulation.Case("", mean=0.7, fresh=True)
    tests = simulation.run_tests(*case.sample(np.random.default_rng(12), 300, 120))
    assert np.median(tests.at) <= 50
    assert (tests.verdict == -1).sum() == 0

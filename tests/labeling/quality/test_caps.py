import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmpo_app.domain.vote import Outcome
from dmpo_app.labeling.quality.vote_weights import VoteWeighing, cap_factors, newcomer_factors
from tests.labeling.quality.crowds import Vote, crowd, said


def capped(masses: list[float], share: float) -> list[float]:
    values = np.array(masses, float)
    lowered: list[float] = (values * cap_factors(values, share)).tolist()
    return lowered


def test_one_who_weighs_too_much_is_lowered_to_the_share_of_what_is_left() -> None:
    after = capped([500.0, *[10.0] * 29], 0.05)
    assert after[0] / sum(after) == pytest.approx(0.05)
    assert after[1:] == [10.0] * 29


def test_several_who_weigh_too_much_are_lowered_to_one_level() -> None:
    after = capped([500.0, 90.0, *[10.0] * 28], 0.05)
    assert after[0] == pytest.approx(after[1])
    assert after[0] / sum(after) == pytest.approx(0.05)
    # 16 is below 5 % of 590, and above it once the largest is lowered: the water reaches it too.
    after = capped([500.0, 16.0, *[10.0] * 28], 0.05)
    assert after[1] / sum(after) == pytest.approx(0.05)


def test_a_share_that_nobody_exceeds_leaves_all_as_they_are() -> None:
    assert cap_factors(np.array([10.0] * 20), 0.05).tolist() == [1.0] * 20
    assert cap_factors(np.array([3.0, 1.0, 2.0]), 1.0).tolist() == [1.0] * 3
    assert cap_factors(np.zeros(0), 0.05).size == 0
    assert cap_factors(np.array([0.0, 5.0]), 0.05).tolist() == [1.0, 1.0]


def test_too_few_annotators_for_the_share_come_to_equal_shares() -> None:
    assert capped([1000.0, 10.0, 10.0], 0.05) == [10.0, 10.0, 10.0]
    assert capped([70.0], 0.05) == [70.0]


def test_a_visitor_with_one_vote_cuts_nobody_down() -> None:
    assert capped([300.0, 320.0, 310.0, 1.0], 0.05) == [300.0, 310.0, 310.0, 1.0]


# A factor is a quotient of two masses: below 1e-308 it has no relative precision left that a bound of 1e-9 could hold.
MASSES = st.just(0.0) | st.floats(1e-200, 1e4)


@settings(max_examples=150, deadline=None)
@given(st.lists(MASSES, min_size=1, max_size=60), st.floats(0.02, 1.0))
def test_the_cap_holds_or_lowers_to_the_median(masses: list[float], share: float) -> None:
    after = np.array(capped(masses, share))
    assert (after <= np.array(masses) * (1 + 1e-12)).all()
    present = sorted(mass for mass in masses if mass > 0)
    if present:
        median = present[len(present) // 2]
        assert after.max() <= max(share * after.sum(), median) * (1 + 1e-9)
    order = np.argsort(masses, kind="stable")
    assert (np.diff(after[order]) >= -1e-9 * max(1.0, after.max())).all()


def test_the_cap_works_with_and_without_reliability() -> None:
    votes = [*said(0, "ab" * 100), *[vote for k in range(1, 40) for vote in said(k, "ab" * 4)]]
    assert VoteWeighing().weights(votes).by_annotator == dict.fromkeys(range(40), 1.0)
    for weighing in (VoteWeighing("off", 0.05), VoteWeighing("dawid_skene", 0.05)):
        weights = weighing.weights(votes)
        assert weights.summary["largest_share"] == pytest.approx(0.05)
        assert weights.summary["capped"] == 1
        assert weights.weight_for(0) < 0.1


def shares_after(honest: list[int], sybils: list[int], **more: float) -> tuple[float, list[float]]:
    """(share of the sybils together, factor of each honest vote): numbers are votes of one annotator each."""
    masses = np.array([*honest, *sybils], float)
    is_established = np.arange(len(masses)) < len(honest)
    weighing = VoteWeighing("off", more.get("share", 0.05), more.get("newcomers", 0.1), established=())
    factors = weighing.share_factors(masses, is_established)
    weighed = masses * factors
    return float(weighed[~is_established].sum() / weighed.sum()), factors[is_established].tolist()


@pytest.mark.parametrize(
    ("honest", "sybils"),
    [
        ([20] * 20, [1000]),
        ([20] * 5, [1000]),
        ([20] * 20, [64] * 30),
        ([200] * 3, [1] * 30),
        ([20] * 3, [1] * 3600),
        ([20] * 1, [1, 5, 900]),
        ([31, 44, 380], [7] * 500),
    ],
)
def test_newcomers_weigh_a_tenth_together_and_one_of_them_a_twentieth(honest: list[int], sybils: list[int]) -> None:
    share, factors = shares_after(honest, sybils)
    assert share <= 0.1 + 1e-12
    if len(sybils) == 1:
        assert share <= 0.05 + 1e-12
    assert min(factors) > 0
    assert factors == shares_after(honest, [])[1], "they change nothing about what the established weigh"


def test_newcomers_who_are_few_keep_their_weight_and_the_loud_one_is_lowered_first() -> None:
    assert shares_after([100] * 20, [10] * 5)[0] == pytest.approx(50 / 2050)
    factors = newcomer_factors(np.array([5.0, 5.0, 1000.0]), most_each=np.inf, most_together=40.0)
    assert (np.array([5.0, 5.0, 1000.0]) * factors).tolist() == pytest.approx([5, 5, 30])


@settings(max_examples=150, deadline=None)
@given(st.lists(MASSES, max_size=40), st.floats(1e-6, 1e5), st.floats(1e-6, 1e5))
def test_newcomers_keep_both_bounds_whatever_they_weigh(masses: list[float], each: float, together: float) -> None:
    values = np.array(masses, float)
    after = values * newcomer_factors(values, most_each=each, most_together=together)
    assert (after <= values * (1 + 1e-12)).all()
    assert after.max(initial=0.0) <= each * (1 + 1e-9)
    assert after.sum() <= together * (1 + 1e-9)
    capped = np.minimum(values, each).sum()
    assert after.sum() == pytest.approx(min(capped, together), rel=1e-9), "and what they may weigh, they do"


def test_while_nobody_is_established_there_is_no_cap() -> None:
    votes = [*said(0, "ab" * 100), *[vote for k in range(1, 40) for vote in said(k, "a")]]
    assert set(VoteWeighing("off", 0.05, 0.1, established=()).weights(votes).by_annotator.values()) == {1.0}


def test_held_out_votes_keep_the_shares_among_themselves() -> None:
    trained = [vote for k in range(4) for vote in said(k, "ab" * 20)]
    held_out = [*said(0, "ab" * 5), *[vote for k in range(100, 160) for vote in said(k, "ba" * 5)]]
    weighing = VoteWeighing("off", 0.05, 0.1, established=range(4))
    weights = weighing.weights(trained, applied_to=held_out)
    newcomers = sum(weights.weight_for(vote.annotator_id) for vote in held_out if vote.annotator_id >= 100)
    total = sum(weights.weight_for(vote.annotator_id) for vote in held_out)
    assert newcomers / total == pytest.approx(0.1)


def test_a_crowd_of_newcomers_that_agree_moves_nobodys_reliability_but_its_own() -> None:
    honest = crowd([0.9] * 6, pairs=120, judges=3, seed=4)
    truth = {vote.pair_id: vote.outcome for vote in honest}
    turned = {Outcome.A: Outcome.B, Outcome.B: Outcome.A}
    sybils = [Vote(k, pair, turned[outcome]) for k in range(50, 90) for pair, outcome in truth.items()]
    alone = VoteWeighing("dawid_skene", established=range(6)).weights(honest)
    attacked = VoteWeighing("dawid_skene", newcomer_share=0.1, established=range(6)).weights([*honest, *sybils])
    assert [attacked.weight_for(k) for k in range(6)] == pytest.approx([alone.weight_for(k) for k in range(6)])
    assert max(attacked.weight_for(k) for k in range(50, 90)) == 0
    taken_over = VoteWeighing("dawid_skene").weights([*honest, *sybils])
    assert max(taken_over.weight_for(k) for k in range(6)) < 0.1, "which is what it is for"


def test_a_weighing_is_the_same_after_its_record() -> None:
    votes = [*said(0, "ab" * 20), *said(1, "ab" * 9), *said(2, "b" * 30)]
    weighing = VoteWeighing("off", 0.5, 0.1, established=frozenset({0, 1}))
    read = VoteWeighing.from_config(json.loads(json.dumps(weighing.to_config())))
    assert read.weights(votes) == weighing.weights(votes)
    assert VoteWeighing.from_config({"reliability": "off", "max_annotator_share": None}) == VoteWeighing()

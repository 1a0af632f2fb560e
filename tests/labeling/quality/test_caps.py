import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmpo_app.labeling.quality.vote_weights import VoteWeighing, cap_factors
from tests.labeling.quality.crowds import said


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

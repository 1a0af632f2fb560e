import numpy as np
import pytest
from scipy import stats

from dmpo_app.labeling.quality.quality_votes import benjamini_hochberg, clustered_share, wilson_share


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (3, 10), (10, 10), (811, 2000)])
def test_the_interval_is_wilsons(successes: int, trials: int) -> None:
    ours, theirs = wilson_share(successes, trials), stats.binomtest(successes, trials).proportion_ci(0.95, "wilson")
    assert ours.low == pytest.approx(theirs.low)
    assert ours.high == pytest.approx(theirs.high)
    assert ours.value == successes / trials


def test_nothing_tried_has_no_share() -> None:
    assert wilson_share(0, 0).value is None
    assert clustered_share(np.zeros(3, np.int64), np.zeros(3, np.int64)).high is None


def test_votes_of_one_annotator_that_are_alike_widen_the_interval() -> None:
    trials = np.full(10, 20)
    mixed, alike = np.full(10, 10), np.array([20, 0] * 5)
    plain, clustered = clustered_share(mixed, trials), clustered_share(alike, trials)
    assert (plain.low, plain.high) == (wilson_share(100, 200).low, wilson_share(100, 200).high)
    assert clustered.value == plain.value == 0.5
    assert None not in (clustered.low, clustered.high, plain.low, plain.high)
    assert clustered.high - clustered.low > 3 * (plain.high - plain.low)  # type: ignore[operator]


def test_p_values_are_adjusted_as_by_benjamini_and_hochberg() -> None:
    p_values = np.array([0.01, np.nan, 0.04, 0.03, 0.005, 0.9])
    tested = ~np.isnan(p_values)
    ours = benjamini_hochberg(p_values)
    assert np.isnan(ours[1])
    assert ours[tested] == pytest.approx(stats.false_discovery_control(p_values[tested], method="bh"))
    assert benjamini_hochberg(np.zeros(0)).size == 0

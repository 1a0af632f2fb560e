"""Win rates and mean differences: invariants, and intervals against what they promise."""

import numpy as np
import pytest
from scipy import stats

from dmpo_app.judging.win_rates import CONFIDENCE, Estimate, compare, estimate_mean, estimate_rate


def random_scores(seed: int, prompts: int, seeds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of two versions on a grid of tenths, so that some are ties, and the prompts' numbers."""
    rng = np.random.default_rng(seed)
    shape = (prompts, seeds)
    old = np.round(rng.normal(size=shape), 1)
    new = np.round(old + rng.normal(0.2, 0.4, size=(prompts, 1)) + rng.normal(0, 0.2, size=shape), 1)
    return new.ravel(), old.ravel(), np.repeat(np.arange(prompts), seeds)


def bounds(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


def test_a_tie_is_half_a_win() -> None:
    verdict = compare(np.array([2.0, 1.0, 0.0, 5.0]), np.array([1.0, 1.0, 3.0, 4.0]), np.arange(4))
    assert (verdict.wins, verdict.ties, verdict.losses) == (2, 1, 1)
    assert verdict.win_rate.value == (2 + 0.5) / 4
    assert verdict.difference.value == pytest.approx(-0.25)
    assert verdict.mean_new - verdict.mean_old == pytest.approx(verdict.difference.value)


@pytest.mark.parametrize(("prompts", "seeds"), [(2, 1), (30, 1), (30, 3)])
def test_swapping_the_versions_mirrors_everything(prompts: int, seeds: int) -> None:
    new, old, numbers = random_scores(1, prompts, seeds)
    there, back = compare(new, old, numbers), compare(old, new, numbers)
    assert (there.wins, there.ties, there.losses) == (back.losses, back.ties, back.wins)
    for one, other, whole in ((there.win_rate, back.win_rate, 1.0), (there.difference, back.difference, 0.0)):
        assert one.value + other.value == pytest.approx(whole)
        assert np.add(bounds(one), bounds(other)[::-1]) == pytest.approx([whole, whole])


def test_the_order_of_pairs_and_the_numbers_of_prompts_do_not_matter() -> None:
    new, old, numbers = random_scores(2, 20, 3)
    order = np.random.default_rng(0).permutation(len(new))
    again = compare(new[order], old[order], (7 * numbers + 100)[order])
    assert again.win_rate.low == pytest.approx(compare(new, old, numbers).win_rate.low)
    assert again.difference.high == pytest.approx(compare(new, old, numbers).difference.high)


def test_with_one_seed_the_interval_of_the_mean_is_students() -> None:
    new, old, numbers = random_scores(3, 25, 1)
    estimate = estimate_mean(new - old, numbers)
    low, high = stats.t.interval(CONFIDENCE, 24, loc=(new - old).mean(), scale=stats.sem(new - old))
    assert (estimate.low, estimate.high) == pytest.approx((low, high))


def test_seeds_that_repeat_what_the_first_said_make_nothing_surer() -> None:
    new, old, numbers = random_scores(4, 40, 1)
    once = compare(new, old, numbers)
    thrice = compare(np.repeat(new, 3), np.repeat(old, 3), np.repeat(numbers, 3))
    assert thrice.difference.low == pytest.approx(once.difference.low)
    outcomes = (np.sign(new - old) + 1) / 2
    without_ties = np.where(outcomes == 0.5, 1.0, outcomes)
    single = estimate_rate(without_ties, numbers)
    repeated = estimate_rate(np.repeat(without_ties, 3), np.repeat(numbers, 3))
    assert (repeated.low, repeated.high) == pytest.approx((single.low, single.high))


@pytest.mark.parametrize("outcome", [0.0, 0.5, 1.0])
def test_even_unanimous_outcomes_leave_doubt_that_shrinks_with_more_prompts(outcome: float) -> None:
    widths = []
    for prompts in (5, 50, 500):
        estimate = estimate_rate(np.full(prompts, outcome), np.arange(prompts))
        low, high = bounds(estimate)
        assert 0 <= low <= outcome <= high <= 1
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2] > 0


def test_one_prompt_has_no_interval() -> None:
    verdict = compare(np.array([2.0, 3.0]), np.array([1.0, 4.0]), np.zeros(2, int))
    assert verdict.win_rate.value == 0.5
    assert verdict.win_rate.low is verdict.win_rate.high is verdict.difference.low is None


@pytest.mark.parametrize(("prompts", "seeds", "spread"), [(15, 1, 0.0), (100, 1, 0.0), (30, 4, 1.0)])
def test_intervals_hold_the_truth_as_often_as_they_say(prompts: int, seeds: int, spread: float) -> None:
    """Chances of prompts are drawn around 0.7: with a spread of 1 they are all over the place."""
    rng = np.random.default_rng(5)
    hits, runs = 0, 1500
    numbers = np.repeat(np.arange(prompts), seeds)
    for _ in range(runs):
        chances = rng.beta(1.4, 0.6, prompts) if spread else np.full(prompts, 0.7)
        outcomes = (rng.random((prompts, seeds)) < chances[:, None]).astype(float).ravel()
        low, high = bounds(estimate_rate(outcomes, numbers))
        hits += low <= 0.7 <= high
    assert 0.93 <= hits / runs <= 0.99


@pytest.mark.parametrize("lengths", [(0, 0, 0), (2, 3, 2), (2, 2, 3)])
def test_what_is_no_comparison_is_refused(lengths: tuple[int, int, int]) -> None:
    new, old, prompts = lengths
    with pytest.raises(ValueError, match="no comparison"):
        compare(np.zeros(new), np.zeros(old), np.zeros(prompts, int))

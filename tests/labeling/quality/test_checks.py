import numpy as np
import pytest
from scipy import stats

from dmpo_app.domain.vote import Outcome
from dmpo_app.labeling.quality import checks
from dmpo_app.labeling.quality.quality_votes import VoteArrays
from tests.labeling.quality.crowds import Vote, said


def test_a_repeat_with_sides_swapped_tells_who_goes_by_the_images_from_who_goes_by_the_side() -> None:
    faithful = [*said(1, "abab"), *said(1, "abat", a_on_left=False)]
    # The image on the left every time: a where a stands left, b where it stands right.
    always_left = [*said(2, "aaaa"), *said(2, "bbbs", a_on_left=False)]
    votes = VoteArrays.from_votes([*faithful, *always_left])
    same, compared = checks.repeat_consistency(votes)
    assert (same.tolist(), compared.tolist()) == ([3, 0], [4, 3])
    left, decided = checks.left_votes(votes)
    assert (left.tolist(), decided.tolist()) == ([2 + 1, 7], [7, 7])


def test_gold_pairs_are_marked_by_the_first_answer() -> None:
    gold = {0: Outcome.A, 1: Outcome.TIE}
    votes = VoteArrays.from_votes([*said(1, "ata"), *said(1, "b"), *said(2, "bs")], gold)
    right, judged = checks.gold_accuracy(votes)
    assert (right.tolist(), judged.tolist()) == ([2, 0], [2, 1])


def test_times_ties_and_haste_are_counted_by_annotator() -> None:
    slow, fast = said(1, "at", elapsed_ms=3000), said(2, "ab", elapsed_ms=599)
    votes = VoteArrays.from_votes(
        [*slow, *fast, Vote(2, 5, Outcome.A, elapsed_ms=0), Vote(3, 6, Outcome.SKIP, elapsed_ms=0)]
    )
    assert checks.median_times(votes)[:2].tolist() == [3000, 599]
    assert np.isnan(checks.median_times(votes)[2])
    hasty, timed = checks.fast_votes(votes)
    assert (hasty.tolist(), timed.tolist()) == ([0, 2, 0], [2, 2, 0])
    assert [counts.tolist() for counts in checks.tie_votes(votes)] == [[1, 0, 0], [2, 3, 0]]
    histogram = dict(zip(checks.TIME_EDGES_MS, checks.time_histogram(votes).tolist(), strict=True))
    assert {edge: count for edge, count in histogram.items() if count} == {300: 2, 3000: 2}


def test_both_tests_are_the_exact_binomial_ones() -> None:
    successes, trials = np.array([0, 5, 9, 30, 0]), np.array([1, 10, 10, 100, 0])
    two_sided = checks.two_sided_coin_test(successes, trials)
    too_few = checks.too_few_test(successes, trials, expected=0.8)
    for k in range(4):
        test = stats.binomtest(int(successes[k]), int(trials[k]))
        assert two_sided[k] == pytest.approx(test.pvalue)
        fewer = stats.binomtest(int(successes[k]), int(trials[k]), 0.8, alternative="less")
        assert too_few[k] == pytest.approx(fewer.pvalue)
    assert np.isnan(two_sided[4])
    assert np.isnan(too_few[4])


def test_no_votes_are_no_trouble() -> None:
    votes = VoteArrays.from_votes([])
    for check in (
        checks.repeat_consistency,
        checks.gold_accuracy,
        checks.left_votes,
        checks.tie_votes,
        checks.fast_votes,
    ):
        assert [counts.size for counts in check(votes)] == [0, 0]
    assert checks.median_times(votes).size == 0
    assert checks.time_histogram(votes).sum() == 0

"""Krippendorff's alpha against what he published, and each annotator against the others."""

import numpy as np
import pytest

from dmpo_app.labeling.quality.agreement import alpha_interval, krippendorff_alpha, majority_agreement, outcome_counts
from dmpo_app.labeling.quality.quality_votes import Ints, VoteArrays
from tests.labeling.quality.crowds import crowd, said


def counts_of(*observers: str) -> Ints:
    """Units by values, from one line an observer, one letter a unit."""
    values = sorted(set("".join(observers)) - {"."})
    return np.array(
        [[[line[unit] for line in observers].count(v) for v in values] for unit in range(len(observers[0]))]
    )


@pytest.mark.parametrize(
    ("observers", "published"),
    [
        (("0100000010", "1110010000"), 0.095),
        (("aabbdcccedda", "babbbcccEddd".replace("E", "e")), 0.692),
        (("123321412...", "1233224125.3", ".3332342251.", "12332441251."), 0.743),
    ],
)
def test_alpha_is_what_krippendorff_computes_in_his_worked_examples(
    observers: tuple[str, ...], published: float
) -> None:
    assert krippendorff_alpha(counts_of(*observers)) == pytest.approx(published, abs=5e-4)


def test_full_agreement_is_one_and_what_cannot_be_compared_has_no_alpha() -> None:
    assert krippendorff_alpha(counts_of("aabb", "aabb")) == pytest.approx(1)
    assert krippendorff_alpha(counts_of("aaaa", "aaaa")) is None
    assert krippendorff_alpha(counts_of("ab..", "..ab")) is None
    assert krippendorff_alpha(np.zeros((0, 4), np.int64)) is None
    assert alpha_interval(counts_of("ab..", "..ab"), np.random.default_rng(0)) is None


def test_the_bootstrap_over_pairs_covers_the_alpha_of_the_whole_population() -> None:
    accuracies = [0.9] * 6 + [0.6] * 6
    population = VoteArrays.from_votes(crowd(accuracies, pairs=4000, judges=3, seed=0))
    true_alpha = krippendorff_alpha(outcome_counts(population))
    assert true_alpha is not None
    covered, widths = 0, []
    for seed in range(1, 101):
        sample = outcome_counts(VoteArrays.from_votes(crowd(accuracies, pairs=80, judges=3, seed=seed)))
        found = alpha_interval(sample, np.random.default_rng(seed), samples=400)
        assert found is not None
        assert found.low < found.value < found.high
        covered += found.low <= true_alpha <= found.high
        widths.append(found.high - found.low)
    assert 87 <= covered <= 100
    assert 0.1 < np.mean(widths) < 0.5


def test_the_interval_is_the_same_for_the_same_votes() -> None:
    counts = outcome_counts(VoteArrays.from_votes(crowd([0.8] * 5, pairs=50, judges=2, seed=3)))
    assert alpha_interval(counts, np.random.default_rng(1)) == alpha_interval(counts, np.random.default_rng(1))


def test_an_annotator_is_compared_with_the_majority_of_the_others_only() -> None:
    votes = VoteArrays.from_votes([*said(0, "aaab."), *said(1, "aab.t"), *said(2, "abb.s"), *said(3, "...bt")])
    agreeing, compared = majority_agreement(votes)
    # On pair 1 annotators 0 and 1 see the others one against one, and only 2 sees a majority; on pair 2 only 0 does.
    assert compared.tolist() == [3, 2, 2, 2]
    assert agreeing.tolist() == [2, 2, 1, 2]


def test_skips_gold_pairs_and_repeats_say_nothing_about_agreement() -> None:
    votes = [*said(0, "as"), *said(1, "ba"), *said(0, "b")]
    arrays = VoteArrays.from_votes(votes)
    assert arrays.repeat.tolist() == [False, False, False, False, True]
    assert outcome_counts(arrays).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
    assert outcome_counts(VoteArrays.from_votes(votes, gold={0: votes[0].outcome})).tolist() == [
        [0, 0, 0, 0],
        [1, 0, 0, 0],
    ]

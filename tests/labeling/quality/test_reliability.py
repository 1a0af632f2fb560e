"""Weights of annotators against a truth that is known."""

import numpy as np
import pytest

from dmpo_app.labeling.quality.quality_votes import A, Floats, VoteArrays
from dmpo_app.labeling.quality.vote_weights import INITIAL_ACCURACY, PRIOR_VOTES, Reliability, VoteWeighing, dawid_skene
from tests.labeling.quality.crowds import Vote, crowd, said

WEIGHED = VoteWeighing("dawid_skene")


def estimate(votes: list[Vote], truth: Floats | None = None) -> Reliability:
    arrays = VoteArrays.from_votes(votes)
    decided = arrays.is_decided
    return dawid_skene(
        arrays.annotator[decided],
        arrays.pair[decided],
        arrays.outcome[decided] == A,
        num_votes=arrays.per_annotator(arrays.is_not_skip),
        truth=truth,
    )


def test_accuracies_of_a_simulated_crowd_are_found() -> None:
    accuracies = [0.95, 0.9, 0.9, 0.85, 0.8, 0.8, 0.75, 0.7, 0.5, 0.5, 0.15]
    found = estimate(crowd(accuracies, pairs=2500, judges=3, seed=0))
    assert np.abs(found.accuracy - accuracies).max() < 0.05
    assert found.relative.max() == 1
    assert found.relative[:8].tolist() == pytest.approx([(2 * q - 1) / 0.9 for q in accuracies[:8]], abs=0.12)


def test_who_clicks_at_random_weighs_little_and_who_votes_against_all_weighs_nothing() -> None:
    accuracies = [0.85] * 17 + [0.5, 0.5, 0.1]
    found = estimate(crowd(accuracies, pairs=600, judges=3, seed=1))
    assert (found.weight[:17] > 0.7).all()
    assert (found.weight[17:19] < 0.35).all()
    assert found.weight[19] == 0
    assert (found.weight >= 0).all()


def test_the_mean_weight_over_votes_is_one_however_unequal_the_crowd() -> None:
    activity = [30.0, 10.0, 5.0, *[1.0] * 12]
    votes = crowd([0.9, 0.5, 0.2, *[0.8] * 12], pairs=300, judges=3, seed=2, activity=activity)
    weights = WEIGHED.weights(votes)
    assert np.mean([weights.weight_for(vote.annotator_id) for vote in votes]) == pytest.approx(1)
    assert weights.summary["mean_weight"] == pytest.approx(1)


def test_who_has_few_votes_weighs_about_one_and_who_has_nothing_in_common_exactly_one() -> None:
    votes = crowd([0.85] * 6 + [0.5], pairs=400, judges=3, seed=3)
    wrong = next(vote for vote in votes if vote.annotator_id == 0)
    newcomer = Vote(98, wrong.pair_id, wrong.outcome)
    alone = [Vote(99, 10_000 + n, wrong.outcome) for n in range(50)]
    weights = WEIGHED.weights([*votes, newcomer, *alone])
    assert weights.weight_for(98) == pytest.approx(1, abs=0.12)
    assert weights.weight_for(99) == 1.0
    assert weights.weight_for(12345) == 1.0


def test_without_any_overlap_every_weight_is_one_to_the_last_bit() -> None:
    votes = [*said(1, "abab"), *said(2, "....abba"), *said(3, "........tb")]
    found = estimate(votes)
    assert found.weight.tolist() == [1.0, 1.0, 1.0]
    assert found.accuracy.tolist() == [INITIAL_ACCURACY] * 3
    assert set(WEIGHED.weights(votes).by_annotator.values()) == {1.0}


def test_an_estimate_leans_on_the_prior_by_its_own_number_of_votes() -> None:
    truth = np.array([1.0] * 1000)
    few = estimate([*said(0, "b" * 10), *said(1, "a" * 1000)], truth)
    many = estimate([*said(0, "b" * 1000), *said(1, "a" * 1000)], truth)
    assert few.accuracy[0] == pytest.approx(PRIOR_VOTES * 0.99 / (PRIOR_VOTES + 10), abs=0.02)
    assert many.accuracy[0] < 0.02
    assert many.compared.tolist() == [1000, 1000]


def test_known_truths_overrule_a_hostile_majority() -> None:
    votes = [*said(0, "ab" * 30), *said(1, "ba" * 30), *said(2, "ba" * 30)]
    fooled = estimate(votes)
    assert fooled.weight[0] == 0
    truth = np.full(60, np.nan)
    truth[:20] = [1.0, 0.0] * 10
    warned = estimate(votes, truth)
    assert warned.weight[0] > 1
    assert warned.weight[1:].tolist() == [0, 0]


def test_when_nobody_beats_a_coin_all_weigh_the_same() -> None:
    truth = np.array([1.0] * 40)
    found = estimate([*said(0, "b" * 40), *said(1, "b" * 40)], truth)
    assert found.weight.tolist() == [1, 1]
    assert found.relative.tolist() == [0, 0]


def test_the_order_of_annotators_and_the_names_of_the_images_do_not_matter() -> None:
    votes = crowd([0.9, 0.8, 0.8, 0.7, 0.4], pairs=120, judges=3, seed=5)
    turned = {vote: "ba"["ab".index(vote.outcome.value)] for vote in votes}
    mirrored = [Vote(vote.annotator_id, vote.pair_id, type(vote.outcome)(turned[vote])) for vote in votes]
    ours, theirs = WEIGHED.weights(votes), WEIGHED.weights(mirrored)
    assert theirs.by_annotator == pytest.approx(ours.by_annotator, abs=1e-6)
    renamed = [Vote(10 - vote.annotator_id, vote.pair_id, vote.outcome) for vote in votes]
    found = WEIGHED.weights(renamed)
    assert [found.weight_for(10 - k) for k in range(5)] == pytest.approx(
        [ours.weight_for(k) for k in range(5)], abs=1e-6
    )

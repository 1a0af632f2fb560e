"""The statistics of a version's effects: invariants, and a simulation of versions that move nothing."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from dmpo_app.domain.effects import (
    EffectMeasure,
    HeldOutAgreement,
    VersionEffects,
    held_out_agreement,
    say_what_was_learned,
)
from dmpo_app.judging.effects import FAMILY_LEVEL, MIN_PROMPTS, ImageChanges, measure_effects, sign_flip_p_values

Floats = NDArray[np.float64]

BRIGHTNESS = EffectMeasure("brightness", "darker", "brighter", "percent")
WARMTH = EffectMeasure("warmth", "cooler", "warmer", "points")
SCORE = EffectMeasure("pickscore", "lower by pickscore", "higher by pickscore", "deviations")
MEASURES = (BRIGHTNESS, WARMTH, SCORE)


def draw_values(num_prompts: int = 16, num_seeds: int = 2, num_measures: int = 3, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    return 0.5 + 0.1 * rng.standard_normal((num_prompts, num_seeds, num_measures))


def changes_of(values: Floats, share: float = 0.02) -> ImageChanges:
    num_prompts, num_seeds, _ = values.shape
    ids = np.arange(num_prompts * num_seeds).reshape(num_prompts, num_seeds)
    shares = np.full((num_prompts, num_seeds), share)
    prompts, seeds = [f"prompt {row}" for row in range(num_prompts)], list(range(101, 101 + num_seeds))
    return ImageChanges(prompts, seeds, shares, ids + 1000, ids)


def compare(values: Floats, other: Floats, changes: ImageChanges | None = None) -> VersionEffects:
    return measure_effects(MEASURES, values, other, changes or changes_of(values), other_name="version 1")


def darken(other: Floats, factor: float, seed: int = 1) -> Floats:
    noise = 0.01 * np.random.default_rng(seed).standard_normal(other.shape)
    return np.asarray(other * np.array([factor, 1.0, 1.0]) + noise)


def test_a_version_that_is_darker_everywhere_is_said_to_be_darker_and_nothing_else() -> None:
    other = draw_values()
    effects = compare(darken(other, 0.91), other)
    first = effects.measures[0]
    assert (first.words, first.moved, first.num_agreeing, first.unit) == ("darker", True, 32, "percent")
    assert first.low < -9 < first.high
    assert first.high - first.low < 3
    assert not any(effect.moved for effect in effects.measures[1:])
    assert effects.sentence == (
        f"Compared with version 1: darker in 32 of 32 images, by {-first.size:.1f} %; nothing else beyond chance."
    )


def test_versions_compared_the_other_way_round_move_the_other_way_and_are_as_sure() -> None:
    other = draw_values()
    values = darken(other, 0.9)
    there, back = compare(values, other), compare(other, values)
    by_name = {effect.measure: effect for effect in back.measures}
    for effect in there.measures:
        assert by_name[effect.measure].p_value == effect.p_value
        assert by_name[effect.measure].num_agreeing == effect.num_agreeing
        assert np.sign(by_name[effect.measure].size) == -np.sign(effect.size)


def test_the_order_of_prompts_and_the_scale_of_a_measure_change_nothing() -> None:
    means = draw_values(12, 1, 4)[:, 0] - 0.48
    shuffled = means[np.random.default_rng(3).permutation(12)]
    np.testing.assert_allclose(sign_flip_p_values(shuffled), sign_flip_p_values(means))
    np.testing.assert_allclose(sign_flip_p_values(means * np.array([1.0, 1e-6, 1e6, -3.0])), sign_flip_p_values(means))


def test_one_measure_alone_has_the_exact_p_value_of_the_sign_flip_test() -> None:
    # Of the 2^7 ways to sign 7 differences of one direction, none gives as large a sum but these and their opposites.
    assert sign_flip_p_values(np.arange(1.0, 8.0)[:, None]) == pytest.approx(2 / 2**7)


def test_a_measure_that_says_the_same_as_another_costs_no_certainty() -> None:
    means = draw_values(10, 1, 1)[:, 0] - 0.45
    np.testing.assert_allclose(sign_flip_p_values(np.repeat(means, 5, axis=1)), sign_flip_p_values(means)[0])


def test_what_moves_is_called_moved_beside_twenty_measures_that_do_not() -> None:
    rng = np.random.default_rng(4)
    means = rng.standard_normal((16, 21))
    means[:, 7] += 2.0
    moved = sign_flip_p_values(means) <= FAMILY_LEVEL
    assert moved[7]


def test_versions_that_move_nothing_are_said_to_move_something_in_at_most_five_of_a_hundred() -> None:
    """2,000 versions, 9 prompts of 2 seeds that share much, 20 correlated measures with heavy tails."""
    rng = np.random.default_rng(5)
    mixing = rng.standard_normal((20, 20))
    wrong = 0
    for _ in range(2000):
        differences = rng.standard_t(4, size=(9, 1, 20)) + 0.5 * rng.standard_t(4, size=(9, 2, 20))
        wrong += bool((sign_flip_p_values((differences @ mixing).mean(1)) <= FAMILY_LEVEL).any())
    assert 0.035 * 2000 <= wrong <= 0.06 * 2000  # 5 %, give or take twice its standard error


def test_images_that_changed_without_a_direction_are_said_to_have_changed() -> None:
    other = draw_values()
    sentence = compare(other + 0.01 * (draw_values(seed=9) - 0.5), other).sentence
    assert sentence == (
        "Compared with version 1: no measure moved beyond chance (3 measures, 16 prompts); "
        "the images changed by 2.0 % on average."
    )


def test_the_same_images_are_said_to_be_the_same() -> None:
    other = draw_values()
    effects = compare(other, other, changes_of(other, share=0.0))
    assert effects.sentence == "Compared with version 1: all 32 images are the same."
    assert [effect.p_value for effect in effects.measures] == [1.0, 1.0, 1.0]


def test_too_few_prompts_are_said_to_be_too_few_whatever_moved() -> None:
    other = draw_values(MIN_PROMPTS - 1)
    effects = compare(darken(other, 0.5), other)
    assert not any(effect.moved for effect in effects.measures)
    assert "5 held-out prompts are too few to tell an effect from chance" in effects.sentence


def test_of_the_prompts_those_that_changed_most_are_named_with_their_images() -> None:
    other = draw_values()
    changes = changes_of(other)
    changes.shares[3] = (0.2, 0.4)
    changes.shares[11] = (0.1, 0.0)
    first, second, *_ = compare(other, other, changes).prompts_changed_most
    assert (first.prompt, first.seed, first.image_id, first.other_image_id) == ("prompt 3", 102, 1007, 7)
    assert first.change == pytest.approx(30.0)
    assert (second.prompt, second.seed) == ("prompt 11", 101)


def test_sizes_are_told_in_the_measures_own_unit() -> None:
    other = draw_values()
    values = other + np.array([0.05, 0.05, 0.05])
    sizes = {effect.measure: effect for effect in compare(values, other).measures}
    assert sizes["brightness"].size == pytest.approx(5 / other[..., 0].mean())
    assert sizes["warmth"].size == pytest.approx(5)
    assert sizes["pickscore"].size == pytest.approx(0.05 / other[..., 2].std())


def test_effects_survive_json() -> None:
    other = draw_values()
    effects = compare(darken(other, 0.9), other)
    assert VersionEffects.from_json(json.loads(json.dumps(effects.to_json()))) == effects


def test_agreement_is_told_in_votes() -> None:
    metrics = {"held_out_votes": 11.0, "held_out_accuracy": 9 / 11}
    assert say_what_was_learned(metrics, ["Darker."]) == ["Agrees with 9 of 11 votes it has not seen.", "Darker."]
    gated = {**metrics, "gate_votes": 12.0, "gate_agreement": 7 / 12}
    assert held_out_agreement(gated) == HeldOutAgreement(7, 12)
    assert held_out_agreement({"held_out_votes": 0.0}) is None
    assert held_out_agreement({"held_out_votes": 3.0, "held_out_accuracy": float("nan")}) is None

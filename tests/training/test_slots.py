"""Slots and draws: even, reproducible, and the same in every process."""

import math
from collections import Counter

import pytest
import torch

from dmpo_app.training.data.training_examples import (
    Example,
    Slot,
    TimestepDensity,
    compute_slot,
    evaluation_slots,
    examples_for_step,
    keyed_seed,
    noise_for_slot,
)


def slots_of(pair_id: int, *, seed: int = 0) -> list[Slot]:
    return [compute_slot(pair_id, slot, num_slots=16, num_timesteps=1000, seed=seed) for slot in range(16)]


def test_the_slots_of_a_pair_fall_one_into_each_share_of_the_timesteps() -> None:
    for pair_id in range(50):
        shares = [slot.timestep * 16 // 1000 for slot in slots_of(pair_id)]
        assert shares == list(range(16))


def test_slots_differ_between_pairs_and_seeds_but_never_between_calls() -> None:
    assert slots_of(1) == slots_of(1)
    assert slots_of(1) != slots_of(2)
    assert slots_of(1) != slots_of(1, seed=1)
    assert len({slot.noise_seed for pair in range(100) for slot in slots_of(pair)}) == 1600


def test_more_slots_than_timesteps_still_give_valid_timesteps() -> None:
    timesteps = [compute_slot(3, slot, num_slots=20, num_timesteps=8, seed=0).timestep for slot in range(20)]
    assert min(timesteps) >= 0
    assert max(timesteps) <= 7


def test_a_slot_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="slot 16"):
        compute_slot(1, 16, num_slots=16, num_timesteps=1000, seed=0)


def test_noise_is_standard_normal_and_a_function_of_the_slot_alone() -> None:
    first, second = slots_of(1)[:2]
    noise = noise_for_slot(first, (4, 64, 64))
    torch.manual_seed(123)
    assert torch.equal(noise, noise_for_slot(first, (4, 64, 64)))
    assert not torch.equal(noise, noise_for_slot(second, (4, 64, 64)))
    assert abs(noise.mean().item()) < 0.05
    assert abs(noise.std().item() - 1) < 0.05


def test_noise_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    noise_for_slot(slots_of(1)[0], (4, 8, 8))
    assert torch.equal(torch.rand(1), expected)


def test_every_pair_is_drawn_equally_often_and_every_batch_spreads_its_noise_levels() -> None:
    pairs: Counter[int] = Counter()
    for step in range(30):
        draws = examples_for_step(step, num_pairs=12, batch_pairs=8, num_slots=16, seed=5)
        pairs.update(draw.pair for draw in draws)
        assert len({draw.slot for draw in draws}) == 8
    assert set(pairs.values()) == {20}


def test_a_batch_larger_than_the_data_keeps_its_size() -> None:
    draws = examples_for_step(0, num_pairs=3, batch_pairs=8, num_slots=16, seed=0)
    assert len(draws) == 8
    assert {draw.pair for draw in draws} == {0, 1, 2}
    assert len(set(draws)) == 8


def test_draws_of_a_step_do_not_depend_on_the_steps_before() -> None:
    def draws(seed: int) -> list[Example]:
        return examples_for_step(17, num_pairs=40, batch_pairs=8, num_slots=16, seed=seed)

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_evaluation_slots_are_spread_over_the_noise_levels() -> None:
    assert evaluation_slots(16) == [2, 6, 10, 14]
    assert evaluation_slots(3) == [0, 1, 2]


def test_a_keyed_seed_is_a_known_number_and_tells_its_parts_apart() -> None:
    assert keyed_seed(0, "slot", 1, 2) == keyed_seed(0, "slot", 1, 2)
    assert keyed_seed("1") != keyed_seed(1)
    assert keyed_seed("a", "b") != keyed_seed("ab")
    assert 0 <= keyed_seed("x") < 2**63


DENSITIES = [
    TimestepDensity("logit_normal"),
    TimestepDensity("logit_normal", -1.0, 0.5),
    TimestepDensity("mode", 0, 1.29),
]


def timesteps_of(density: TimestepDensity, pair_id: int = 1, num_slots: int = 16) -> list[int]:
    return [
        compute_slot(pair_id, slot, num_slots=num_slots, num_timesteps=1000, seed=0, density=density).timestep
        for slot in range(num_slots)
    ]


def test_usual_slots_are_those_of_before_there_was_a_choice() -> None:
    assert timesteps_of(TimestepDensity()) == [slot.timestep for slot in slots_of(1)]
    assert timesteps_of(TimestepDensity())[:4] == [40, 91, 145, 239]


@pytest.mark.parametrize("density", DENSITIES)
def test_each_slot_lies_between_its_own_quantiles(density: TimestepDensity) -> None:
    for pair_id in range(20):
        for slot, timestep in enumerate(timesteps_of(density, pair_id)):
            low, high = density.noise_level(slot / 16), density.noise_level((slot + 1) / 16)
            assert int(1000 * low) <= timestep <= 1000 * high


@pytest.mark.parametrize("density", DENSITIES)
def test_noise_levels_grow_with_the_quantile_and_stay_between_none_and_all(density: TimestepDensity) -> None:
    levels = [density.noise_level(i / 200) for i in range(201)]
    assert levels == sorted(levels)
    assert 0 <= levels[0] < 0.05
    assert 0.6 < levels[-1] <= 1


def test_a_logit_normal_density_has_its_median_and_its_spread_where_they_belong() -> None:
    density = TimestepDensity("logit_normal", mean=-1.0, scale=0.5)
    assert density.noise_level(0.5) == pytest.approx(1 / (1 + math.e))
    one_deviation_up = 0.8413447460685429
    assert density.noise_level(one_deviation_up) == pytest.approx(1 / (1 + math.exp(0.5)))
    middle = [t for t in timesteps_of(TimestepDensity("logit_normal"), num_slots=100) if 250 <= t < 750]
    assert 70 <= len(middle) <= 75  # P(|Normal| < ln 3) = 0.728


def test_mode_sampling_is_symmetric_and_prefers_the_middle() -> None:
    density = TimestepDensity("mode", scale=1.29)
    assert density.noise_level(0.5) == pytest.approx(0.5)
    assert density.noise_level(0.2) == pytest.approx(1 - density.noise_level(0.8))
    assert len([t for t in timesteps_of(density, num_slots=100) if 250 <= t < 750]) > 55

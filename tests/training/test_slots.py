"""Slots and draws: even, reproducible, and the same in every process."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from dmpo_app.training.slots import Draw, Slot, draws_of_step, evaluation_slots, keyed_seed, noise_of, slot_of


def slots_of(pair_id: int, *, seed: int = 0) -> list[Slot]:
    return [slot_of(pair_id, slot, num_slots=16, num_timesteps=1000, seed=seed) for slot in range(16)]


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
    timesteps = [slot_of(3, slot, num_slots=20, num_timesteps=8, seed=0).timestep for slot in range(20)]
    assert min(timesteps) >= 0
    assert max(timesteps) <= 7


def test_a_slot_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="slot 16"):
        slot_of(1, 16, num_slots=16, num_timesteps=1000, seed=0)


def test_noise_is_standard_normal_and_a_function_of_the_slot_alone() -> None:
    first, second = slots_of(1)[:2]
    noise = noise_of(first, (4, 64, 64))
    torch.manual_seed(123)
    assert torch.equal(noise, noise_of(first, (4, 64, 64)))
    assert not torch.equal(noise, noise_of(second, (4, 64, 64)))
    assert abs(noise.mean().item()) < 0.05
    assert abs(noise.std().item() - 1) < 0.05


def test_noise_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    noise_of(slots_of(1)[0], (4, 8, 8))
    assert torch.equal(torch.rand(1), expected)


def test_every_pair_is_drawn_equally_often_and_every_batch_spreads_its_noise_levels() -> None:
    pairs: Counter[int] = Counter()
    for step in range(30):
        draws = draws_of_step(step, num_pairs=12, batch_pairs=8, num_slots=16, seed=5)
        pairs.update(draw.pair for draw in draws)
        assert len({draw.slot for draw in draws}) == 8
    assert set(pairs.values()) == {20}


def test_a_batch_larger_than_the_data_keeps_its_size() -> None:
    draws = draws_of_step(0, num_pairs=3, batch_pairs=8, num_slots=16, seed=0)
    assert len(draws) == 8
    assert {draw.pair for draw in draws} == {0, 1, 2}
    assert len(set(draws)) == 8


def test_draws_of_a_step_do_not_depend_on_the_steps_before() -> None:
    def draws(seed: int) -> list[Draw]:
        return draws_of_step(17, num_pairs=40, batch_pairs=8, num_slots=16, seed=seed)

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

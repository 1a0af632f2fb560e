"""References computed in idle time are the ones a round would compute, and the round does not compute them again."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.training.reference.prefetch import ReferencePrefetcher
from dmpo_app.training.reference.reference_cache import reference_folder
from tests.training.training_studio import FAST, TrainingStudio


def passes(denoiser: Denoiser) -> list[int]:
    count = [0]

    def note(*_: Any) -> None:
        count[0] += 1

    denoiser.module.register_forward_hook(note)
    return count


@pytest.fixture
def voted(studio: TrainingStudio) -> TrainingStudio:
    studio.add_pairs(6)
    studio.vote(6)
    return studio


def fill_all(prefetcher: ReferencePrefetcher) -> int:
    batches = 0
    while prefetcher.fill():
        batches += 1
    return batches


def test_every_slot_of_every_voted_pair_is_filled_once(voted: TrainingStudio, denoiser: Denoiser) -> None:
    prefetcher = ReferencePrefetcher(voted.store, voted.base, denoiser, FAST)
    count = passes(denoiser)
    assert fill_all(prefetcher) == 6 * FAST.slots_per_pair / FAST.batch_pairs == count[0]
    assert not prefetcher.fill()
    voted.add_pairs(1)
    voted.vote(1)
    assert fill_all(prefetcher) == FAST.slots_per_pair / FAST.batch_pairs
    saved = load_file(next(reference_folder(voted.home).glob("*.safetensors")))
    assert len(saved["draws"]) == 7 * FAST.slots_per_pair


def test_a_prefetcher_that_starts_anew_goes_on_where_the_last_one_saved(
    voted: TrainingStudio, denoiser: Denoiser
) -> None:
    first = ReferencePrefetcher(voted.store, voted.base, denoiser, FAST)
    assert first.fill()
    first.save()
    second = ReferencePrefetcher(voted.store, voted.base, denoiser, FAST)
    assert fill_all(second) == 6 * FAST.slots_per_pair / FAST.batch_pairs - 1


def test_a_prepared_round_makes_the_same_weights_with_fewer_passes(
    voted: TrainingStudio, denoiser: Denoiser, tmp_path: Path
) -> None:
    twin = TrainingStudio.open(tmp_path / "twin", voted.source)
    twin.add_pairs(6)
    twin.vote(6)
    fill_all(ReferencePrefetcher(voted.store, voted.base, denoiser, FAST))
    count = passes(denoiser)
    spent = []
    for studio in (voted, twin):
        before = count[0]
        round_id, token = studio.start()
        studio.run(denoiser, round_id, token)
        spent.append(count[0] - before)
    assert spent[0] < spent[1]
    ours, theirs = (
        load_file(studio.store.adapters.get(studio.base, 1).folder / "pytorch_lora_weights.safetensors")
        for studio in (voted, twin)
    )
    assert all(ours[key].equal(theirs[key]) for key in ours)
    twin.store.close()


def test_without_votes_there_is_nothing_to_do(studio: TrainingStudio, denoiser: Denoiser) -> None:
    assert not ReferencePrefetcher(studio.store, studio.base, denoiser, FAST).fill()
    assert not reference_folder(studio.home).exists()

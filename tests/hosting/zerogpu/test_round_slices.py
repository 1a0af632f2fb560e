"""Rounds in slices, each in a process that was forked for it: the result, and what kills and refusals leave behind."""

import os
from pathlib import Path

import pytest

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.domain.lineage import RoundStatus
from dmpo_app.errors import GpuAbortedError, GpuRefusedError
from tests.hosting.zerogpu.lent_studio import Lent
from tests.training.training_studio import FAST, TrainingStudio, assert_equal, twin_of, weights_of

NO_TIME = 1e-9
"""A slice of one step."""


@pytest.fixture
def voted(studio: TrainingStudio) -> TrainingStudio:
    studio.add_pairs(12)
    studio.vote(12)
    return studio


def test_slices_in_processes_of_their_own_end_with_the_adapter_of_one_uncut_round_bit_for_bit(
    voted: TrainingStudio, denoiser: Denoiser, tmp_path: Path
) -> None:
    uncut = twin_of(voted, tmp_path)
    uncut.run(denoiser, *uncut.start())
    lent = Lent.make(voted, reuse=False)
    lent.advance(NO_TIME)
    lent.advance(NO_TIME)
    assert lent.live == 0
    state = lent.advance()
    assert state.status is RoundStatus.PUBLISHED
    assert lent.live == 1
    assert len(set(lent.gpu.pids)) == 3
    assert os.getpid() not in lent.gpu.pids
    assert_equal(weights_of(voted), weights_of(uncut))
    uncut.store.close()


def test_a_process_that_is_kept_for_the_next_slice_makes_no_difference(
    voted: TrainingStudio, denoiser: Denoiser, tmp_path: Path
) -> None:
    uncut = twin_of(voted, tmp_path)
    uncut.run(denoiser, *uncut.start())
    lent = Lent.make(voted, reuse=True)
    while lent.live == 0:
        lent.advance(NO_TIME)
    assert len(set(lent.gpu.pids)) == 1
    assert len(lent.gpu.pids) == FAST.num_steps
    assert_equal(weights_of(voted), weights_of(uncut))
    uncut.store.close()


def test_a_slice_that_is_killed_leaves_the_last_checkpoint_and_nothing_goes_live(
    voted: TrainingStudio, denoiser: Denoiser, tmp_path: Path
) -> None:
    uncut = twin_of(voted, tmp_path)
    uncut.run(denoiser, *uncut.start())
    lent = Lent.make(voted)
    state = lent.advance(NO_TIME)
    saved = lent.checkpoint(state.id).read_bytes()
    lent.gpu.kill_after = 0
    with pytest.raises(GpuAbortedError, match="goes on from there"):
        lent.advance()
    lent.gpu.kill_after = None
    assert lent.checkpoint(state.id).read_bytes() == saved
    assert lent.live == 0
    assert voted.store.rounds.get(state.id).status is RoundStatus.RUNNING
    assert lent.advance().status is RoundStatus.PUBLISHED
    assert_equal(weights_of(voted), weights_of(uncut))
    uncut.store.close()


def test_a_process_killed_after_its_last_step_but_before_it_said_so_is_not_published_until_the_next_slice(
    voted: TrainingStudio,
) -> None:
    lent = Lent.make(voted, kill_after=1)
    with pytest.raises(GpuAbortedError):
        lent.advance()
    assert lent.live == 0
    lent.gpu.kill_after = None
    assert lent.advance().status is RoundStatus.PUBLISHED


def test_a_refused_gpu_is_explained_and_the_round_waits(voted: TrainingStudio) -> None:
    lent = Lent.make(voted, refusal="You have exceeded your free ZeroGPU quota (60s requested vs. 0s left)")
    for _ in range(11):  # more often than a round may die
        with pytest.raises(GpuRefusedError, match=r"exceeded your free ZeroGPU quota.*Nothing is lost"):
            lent.advance()
    lent.gpu.refusal = None
    assert lent.advance().status is RoundStatus.PUBLISHED


def test_whoever_leaves_in_the_middle_ends_the_slice_and_the_next_may_go_on(voted: TrainingStudio) -> None:
    lent = Lent.make(voted)
    state = lent.lent.trainer.next_round()
    assert state is not None
    events = lent.lent.trainer.train_slice(state, 45)
    next(events)
    events.close()  # type: ignore[attr-defined]  # it is a generator
    assert lent.live == 0
    assert lent.advance().status is RoundStatus.PUBLISHED


def test_a_slice_asks_for_a_gpu_for_no_more_than_a_minute(voted: TrainingStudio) -> None:
    lent = Lent.make(voted, round_settings=FAST.model_copy(update={"beta": None}))
    state = lent.advance()
    assert state.config["settings"]["beta"] > 0, "found by the process with the GPU"
    assert lent.gpu.asked_seconds == [30, 60]

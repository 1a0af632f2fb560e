"""When the scheduler trains, and what it does when things go wrong."""

from datetime import timedelta
from typing import Any, NoReturn

import pytest
import torch

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.domain.lineage import RoundStatus, Trigger
from dmpo_app.domain.vote import Choice
from dmpo_app.errors import RoundFailedError, StorageFullError
from dmpo_app.settings import JudgingSettings
from dmpo_app.training.loop import trainer
from dmpo_app.training.loop.step import train_step
from dmpo_app.training.monitoring.early_stopping import StepResult
from dmpo_app.training.rounds.round_runner import RoundRunner, SliceOutcome, round_folder
from dmpo_app.training.rounds.scheduler import MAX_CRASHES, Tick
from tests.patience import wait_until
from tests.training.scheduler_fixtures import MIN_VOTES, Clock, MakeScheduler
from tests.training.training_studio import TrainingStudio


def test_it_idles_until_enough_new_votes_are_in_then_trains_once(
    studio: TrainingStudio, make_scheduler: MakeScheduler
) -> None:
    scheduler = make_scheduler()
    studio.add_pairs(20)
    assert idle(scheduler.tick())
    studio.vote(MIN_VOTES - 1)
    assert idle(scheduler.tick())
    studio.vote(1)
    assert scheduler.tick() is Tick.TRAINED
    assert studio.store.rounds.get(1).trigger is Trigger.VOTES
    assert studio.store.adapters.live_version(studio.base) == 1
    assert idle(scheduler.tick())
    studio.vote(MIN_VOTES)
    assert scheduler.tick() is Tick.TRAINED
    assert studio.store.rounds.get(2).num_votes == 2 * MIN_VOTES


def test_in_the_mode_hold_a_version_waits_and_the_next_round_starts_from_the_live_one(
    studio: TrainingStudio, make_scheduler: MakeScheduler
) -> None:
    scheduler = make_scheduler(judging=JudgingSettings(mode="hold"))
    studio.add_pairs(20)
    for _ in range(2):
        studio.vote(MIN_VOTES)
        assert scheduler.tick() is Tick.TRAINED
    adapters = studio.store.adapters
    assert [(one.version, one.parent, one.is_held) for one in adapters.list(studio.base)] == [
        (1, 0, True),
        (2, 0, True),
    ]
    assert (adapters.live_version(studio.base), adapters.candidate(studio.base)) == (0, 2)
    assert studio.store.rounds.get(1).status is RoundStatus.PUBLISHED


@pytest.mark.parametrize("lost", ["latents", "embeds"])
@pytest.mark.parametrize("how", ["missing", "half"])
def test_a_round_goes_on_without_the_votes_on_a_pair_that_lost_its_tensors(
    studio: TrainingStudio, make_scheduler: MakeScheduler, clock: Clock, lost: str, how: str
) -> None:
    scheduler = make_scheduler()
    studio.add_pairs(20)
    studio.vote(MIN_VOTES)
    vote = studio.store.votes.training_votes(studio.base)[2]
    files = studio.store.files
    path = files.latents_path(vote.latents_b) if lost == "latents" else files.embeds_path(vote.prompt_embeds)
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100])
    outcomes = []
    for _ in range(4):
        outcomes.append(scheduler.tick())
        clock.advance(seconds=6)
        if outcomes[-1] is Tick.TRAINED:
            break
    assert (outcomes[0], outcomes[-1]) == (Tick.PAUSED, Tick.TRAINED), "it is not tried again and again"
    state = studio.store.rounds.get(1)
    assert state.status in (RoundStatus.PUBLISHED, RoundStatus.REFUSED)
    assert [(one.pair_id, one.lost) for one in studio.store.damage.list(studio.base)] == [(vote.pair_id, "tensors")]
    assert vote.vote_id in [one.vote_id for one in studio.store.vote_records.all(studio.base)], "it stays on record"


def test_references_are_prepared_past_a_pair_that_lost_its_tensors(
    studio: TrainingStudio, make_scheduler: MakeScheduler, clock: Clock
) -> None:
    scheduler = make_scheduler()
    studio.add_pairs(6)
    studio.vote(4)
    vote = studio.store.votes.training_votes(studio.base)[0]
    studio.store.files.latents_path(vote.latents_a).unlink()
    assert scheduler.tick() is Tick.PAUSED
    clock.advance(seconds=6)
    assert scheduler.tick() is Tick.PREPARED
    assert [one.pair_id for one in studio.store.damage.list(studio.base)] == [vote.pair_id]


def test_skips_do_not_count_towards_a_round_and_ties_do(studio: TrainingStudio, make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler()
    studio.add_pairs(20)
    studio.vote(MIN_VOTES, choose=lambda _: Choice.SKIP)
    assert idle(scheduler.tick())
    studio.vote(MIN_VOTES, choose=lambda _: Choice.TIE)
    assert scheduler.tick() is Tick.TRAINED


def test_a_few_votes_that_have_waited_long_enough_start_a_round(
    studio: TrainingStudio, make_scheduler: MakeScheduler, clock: Clock
) -> None:
    scheduler = make_scheduler()
    studio.add_pairs(10)
    studio.vote(2)
    clock.advance(minutes=45)
    assert idle(scheduler.tick())  # too few, however long
    studio.vote(1)
    clock.ahead = timedelta(minutes=29)
    assert idle(scheduler.tick())  # too early
    clock.advance(minutes=2)
    assert scheduler.tick() is Tick.TRAINED
    assert studio.store.rounds.get(1).trigger is Trigger.PERIOD


def test_without_a_period_votes_may_wait_for_ever(
    studio: TrainingStudio, make_scheduler: MakeScheduler, clock: Clock
) -> None:
    scheduler = make_scheduler(period_minutes=None)
    studio.add_pairs(10)
    studio.vote(5)
    clock.advance(days=400)
    assert idle(scheduler.tick())


def test_a_round_that_was_asked_for_is_trained_at_once(studio: TrainingStudio, make_scheduler: MakeScheduler) -> None:
    studio.add_pairs(4)
    studio.vote(2)
    studio.store.rounds.request(studio.base, Trigger.REQUEST)
    assert make_scheduler().tick() is Tick.TRAINED
    assert studio.store.rounds.get(1).trigger is Trigger.REQUEST


def test_a_round_left_running_by_a_dead_trainer_is_resumed_under_the_same_name_at_once(
    studio: TrainingStudio, make_scheduler: MakeScheduler
) -> None:
    studio.add_pairs(10)
    studio.vote(MIN_VOTES)
    dead = make_scheduler(owner="serve@here", should_stop=iter([False, True, True]).__next__)
    assert dead.tick() is Tick.STOPPED  # and it never releases its lease
    assert studio.store.rounds.get(1).status is RoundStatus.RUNNING
    assert make_scheduler(owner="serve@here").tick() is Tick.TRAINED
    state = studio.store.rounds.get(1)
    assert state.status is RoundStatus.PUBLISHED
    assert state.attempts == 2


def test_a_round_finds_its_beta_from_the_base_models_errors_and_records_it(
    studio: TrainingStudio, make_scheduler: MakeScheduler
) -> None:
    studio.add_pairs(10)
    studio.vote(MIN_VOTES)
    assert make_scheduler(beta=None).tick() is Tick.TRAINED
    recorded = studio.store.rounds.get(1).config["settings"]
    assert recorded["beta"] == recorded["margin_beta"] > 0
    studio.vote(MIN_VOTES)
    assert make_scheduler(beta=None).tick() is Tick.TRAINED
    again = studio.store.rounds.get(2).config["settings"]
    assert again["beta"] == pytest.approx(recorded["beta"], rel=0.5)  # other pairs of the same model


def test_it_waits_while_another_trainer_holds_the_lineage_and_goes_on_when_that_closes(
    studio: TrainingStudio, make_scheduler: MakeScheduler
) -> None:
    studio.add_pairs(10)
    other = make_scheduler(owner="another")
    assert idle(other.tick())
    studio.vote(MIN_VOTES)
    scheduler = make_scheduler()
    assert scheduler.tick() is Tick.WAITING
    other.close()
    assert scheduler.tick() is Tick.TRAINED


def test_it_takes_over_from_a_trainer_that_has_been_silent_for_longer_than_its_lease(
    studio: TrainingStudio, make_scheduler: MakeScheduler
) -> None:
    studio.add_pairs(10)
    other = make_scheduler(owner="another", lease_seconds=1.5)
    assert idle(other.tick())
    studio.vote(MIN_VOTES)
    scheduler = make_scheduler()
    assert scheduler.tick() is Tick.WAITING
    wait_until(lambda: scheduler.tick() is Tick.TRAINED, "the other's lease has run out")


def test_a_trainer_that_was_replaced_stops_writing_and_waits(
    studio: TrainingStudio, make_scheduler: MakeScheduler
) -> None:
    studio.add_pairs(10)
    replaced = make_scheduler(owner="serve@here")
    assert idle(replaced.tick())
    successor = make_scheduler(owner="serve@here")
    assert idle(successor.tick())
    studio.vote(MIN_VOTES)
    assert replaced.tick() is Tick.WAITING
    assert studio.store.rounds.list(studio.base)[0].attempts == 0
    assert successor.tick() is Tick.TRAINED
    assert len(studio.store.adapters.list(studio.base)) == 1


def test_a_round_that_diverges_is_failed_at_once_and_waits_for_more_votes(
    studio: TrainingStudio, make_scheduler: MakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(*_: Any, **__: Any) -> NoReturn:
        raise RoundFailedError("training diverged: the loss is nan")

    monkeypatch.setattr(trainer, "train_step", diverges)
    scheduler = make_scheduler()
    studio.add_pairs(30)
    studio.vote(MIN_VOTES)
    assert scheduler.tick() is Tick.FAILED
    last = studio.store.rounds.last(studio.base)
    assert last is not None
    assert last.status is RoundStatus.FAILED
    assert last.reason == "training diverged: the loss is nan"
    assert studio.store.adapters.live_version(studio.base) == 0
    assert not round_folder(studio.home, last.id).exists()
    studio.vote(MIN_VOTES - 1)
    assert idle(scheduler.tick())
    studio.vote(1)
    monkeypatch.undo()
    assert scheduler.tick() is Tick.TRAINED


def test_an_unexpected_error_is_tried_again_after_a_growing_pause_and_given_up_in_the_end(
    studio: TrainingStudio, make_scheduler: MakeScheduler, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    def breaks(*_: Any, **__: Any) -> NoReturn:
        raise OSError("the cable was pulled")

    monkeypatch.setattr(trainer, "train_step", breaks)
    scheduler = make_scheduler(max_attempts=3)
    studio.add_pairs(10)
    studio.vote(MIN_VOTES)
    assert scheduler.tick() is Tick.FAILED
    assert studio.store.rounds.get(1).status is RoundStatus.QUEUED
    assert studio.store.rounds.get(1).reason == "OSError: the cable was pulled"
    assert scheduler.tick() is Tick.PAUSED
    clock.advance(seconds=6)
    assert scheduler.tick() is Tick.FAILED
    clock.advance(seconds=6)
    assert scheduler.tick() is Tick.PAUSED  # ten seconds this time
    clock.advance(seconds=6)
    assert scheduler.tick() is Tick.FAILED
    assert studio.store.rounds.get(1).status is RoundStatus.FAILED
    clock.advance(seconds=60)
    assert idle(scheduler.tick())


def test_an_error_that_passes_costs_nothing(
    studio: TrainingStudio, make_scheduler: MakeScheduler, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    calls = iter(range(100))

    def breaks_once(*arguments: Any, **named: Any) -> StepResult:
        if next(calls) == 1:
            raise OSError("a hiccup")
        return train_step(*arguments, **named)

    monkeypatch.setattr(trainer, "train_step", breaks_once)
    scheduler = make_scheduler()
    studio.add_pairs(10)
    studio.vote(MIN_VOTES)
    assert scheduler.tick() is Tick.FAILED
    clock.advance(seconds=6)
    assert scheduler.tick() is Tick.TRAINED
    assert len(studio.store.adapters.list(studio.base)) == 1


def test_a_full_disk_is_waited_out(
    studio: TrainingStudio, make_scheduler: MakeScheduler, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    full = True
    real = RoundRunner.run_slice

    def run_slice(self: RoundRunner, seconds: float | None = None) -> SliceOutcome:
        if full:
            raise StorageFullError("no space left")
        return real(self, seconds)

    monkeypatch.setattr(RoundRunner, "run_slice", run_slice)
    scheduler = make_scheduler(max_attempts=1)
    studio.add_pairs(10)
    studio.vote(MIN_VOTES)
    for _ in range(5):
        assert scheduler.tick() is Tick.PAUSED
        clock.advance(seconds=6)
    full = False
    assert scheduler.tick() is Tick.TRAINED


def test_a_round_that_keeps_killing_the_process_is_given_up(
    studio: TrainingStudio, make_scheduler: MakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Stands for the end of the process: nothing in it gets to run any more."""

    def dies(self: RoundRunner, seconds: float | None = None) -> NoReturn:
        raise Killed

    studio.add_pairs(10)
    studio.vote(MIN_VOTES)
    monkeypatch.setattr(RoundRunner, "run_slice", dies)
    for _ in range(MAX_CRASHES):
        with pytest.raises(Killed):
            make_scheduler().tick()
    assert make_scheduler().tick() is Tick.FAILED
    last = studio.store.rounds.last(studio.base)
    assert last is not None
    assert f"died {MAX_CRASHES} times in a row at step 0" in (last.reason or "")


def test_being_killed_while_getting_on_is_no_failure(
    studio: TrainingStudio, make_scheduler: MakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmpo_app.training.rounds.scheduler.MAX_CRASHES", 1)
    studio.add_pairs(10)
    studio.vote(MIN_VOTES)
    for _ in range(2):
        assert make_scheduler(should_stop=iter([False, True]).__next__).tick() is Tick.STOPPED
    assert make_scheduler().tick() is Tick.TRAINED


def test_the_denoiser_is_the_base_model_between_rounds(
    studio: TrainingStudio, make_scheduler: MakeScheduler, denoiser: Denoiser
) -> None:
    before = {name: tensor.clone() for name, tensor in denoiser.module.state_dict().items()}
    studio.add_pairs(10)
    studio.vote(MIN_VOTES)
    assert make_scheduler().tick() is Tick.TRAINED
    after = denoiser.module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def idle(tick: Tick) -> bool:
    """Nothing was trained; references for the next round may have been prepared."""
    return tick in (Tick.IDLE, Tick.PREPARED)

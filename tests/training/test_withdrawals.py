"""Votes that are taken back start a round, and a version that learned from them does not stay live."""

from typing import Any

import pytest

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.domain.lineage import NewAdapter, RoundStatus, Trigger
from dmpo_app.errors import RoundFailedError
from dmpo_app.training.rounds import round_runner
from dmpo_app.training.rounds.scheduler import RoundScheduler, Tick
from tests.training.scheduler_fixtures import MIN_VOTES, MakeScheduler
from tests.training.training_studio import FAST, TrainingStudio


def withdraw(studio: TrainingStudio, vote_ids: list[int]) -> None:
    for vote_id in vote_ids:
        [[voter]] = studio.store.read("SELECT annotator_id FROM votes WHERE id = :id", id=vote_id)
        assert studio.store.own_votes.withdraw(vote_id, voter)


def idle(tick: Tick) -> bool:
    return tick in (Tick.IDLE, Tick.PREPARED)


def settle(scheduler: RoundScheduler) -> None:
    """Tick until nothing is left to do, which is soon."""
    for _ in range(20):
        if scheduler.tick() is Tick.IDLE:
            return
    raise AssertionError("the scheduler goes on and on")


def first_version(studio: TrainingStudio) -> list[int]:
    """A live version that was trained on MIN_VOTES votes; its weights are not there, which only a warm start needs."""
    studio.add_pairs(24)
    votes = studio.vote(MIN_VOTES)
    token = studio.store.lease.acquire(studio.base, "tests", lease_seconds=60)
    assert token is not None
    state = studio.store.rounds.start(
        studio.base,
        None,
        trigger=Trigger.VOTES,
        seed=1,
        steps=1,
        config={},
        votes=[(vote_id, False) for vote_id in votes],
        parent_version=0,
        token=token,
    )
    adapter = NewAdapter(0, "00001-aaaaaaaa", "a" * 64, proven=False, metrics={}, vote_ids=votes)
    studio.store.rounds.publish(state.id, adapter, token=token)
    return votes


def test_a_round_starts_once_enough_votes_of_the_live_version_are_withdrawn(
    studio: TrainingStudio, make_scheduler: MakeScheduler
) -> None:
    scheduler = make_scheduler(withdrawn_votes=3)
    learned = first_version(studio)
    withdraw(studio, learned[:2])
    assert idle(scheduler.tick())
    withdraw(studio, learned[2:3])
    assert scheduler.tick() is Tick.TRAINED
    state = studio.store.rounds.get(2)
    assert (state.trigger, state.status) == (Trigger.WITHDRAWAL, RoundStatus.PUBLISHED)
    assert state.reason == "replaces version 1, which learned from 3 votes that were taken back"
    assert studio.store.adapters.live_version(studio.base) == 2
    assert not set(learned[:3]) & set(studio.store.adapters.vote_ids(studio.base, 2))
    assert studio.store.taken_back.counts(studio.base) == {1: 3}
    settle(scheduler)
    assert studio.store.rounds.current(studio.base) is None
    assert len(studio.store.rounds.list(studio.base)) == 2, "one round is enough"


def test_with_one_a_round_starts_at_once_and_with_none_never(
    studio: TrainingStudio, make_scheduler: MakeScheduler
) -> None:
    scheduler = make_scheduler(withdrawn_votes=None)
    learned = first_version(studio)
    withdraw(studio, learned[:1])
    settle(scheduler)
    assert len(studio.store.rounds.list(studio.base)) == 1
    scheduler.close()
    assert make_scheduler(withdrawn_votes=1).tick() is Tick.TRAINED
    assert studio.store.rounds.get(2).trigger is Trigger.WITHDRAWAL


def test_a_version_of_few_votes_is_replaced_once_all_of_them_are_withdrawn(
    studio: TrainingStudio, make_scheduler: MakeScheduler
) -> None:
    scheduler = make_scheduler(withdrawn_votes=1000)
    learned = first_version(studio)
    later = studio.vote(3)
    withdraw(studio, learned)
    assert scheduler.tick() is Tick.TRAINED
    assert studio.store.rounds.get(2).trigger is Trigger.WITHDRAWAL
    assert later[0] in dict(studio.store.rounds.votes(2))


def test_without_votes_to_train_on_the_newest_clean_version_is_live_again(
    studio: TrainingStudio, make_scheduler: MakeScheduler
) -> None:
    scheduler = make_scheduler(withdrawn_votes=1)
    first_version(studio)
    withdraw(studio, [vote.vote_id for vote in studio.store.votes.training_votes(studio.base)])
    settle(scheduler)
    assert studio.store.adapters.live_version(studio.base) == 0
    assert len(studio.store.rounds.list(studio.base)) == 1
    settle(scheduler)
    acts = studio.store.read("SELECT act, subject FROM audit_log ORDER BY id DESC")
    assert [tuple(act) for act in acts] == [("make_live", "version 0")], "once"


@pytest.mark.parametrize("trigger", [Trigger.WITHDRAWAL, Trigger.VOTES])
def test_the_gate_keeps_no_version_alive_whose_votes_were_taken_back(
    studio: TrainingStudio, make_scheduler: MakeScheduler, monkeypatch: pytest.MonkeyPatch, trigger: Trigger
) -> None:
    scheduler = make_scheduler(withdrawn_votes=1)
    learned = first_version(studio)
    monkeypatch.setattr(round_runner, "reason_to_refuse", lambda *_arguments: "it does worse than version 1")
    withdraw(studio, learned[:1])
    studio.vote(MIN_VOTES if trigger is Trigger.VOTES else 1)
    assert scheduler.tick() is Tick.TRAINED
    state = studio.store.rounds.get(2)
    assert (state.trigger, state.status) == (trigger, RoundStatus.PUBLISHED)
    assert state.reason == (
        "replaces version 1, which learned from a vote that was taken back; it does worse than version 1"
    )
    assert studio.store.adapters.live_version(studio.base) == 2


def test_the_gate_still_refuses_what_replaces_nothing(
    studio: TrainingStudio, make_scheduler: MakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = make_scheduler(withdrawn_votes=2)
    learned = first_version(studio)
    monkeypatch.setattr(round_runner, "reason_to_refuse", lambda *_arguments: "it does worse than version 1")
    withdraw(studio, learned[:1])
    studio.vote(MIN_VOTES)
    assert scheduler.tick() is Tick.TRAINED
    assert studio.store.rounds.get(2).status is RoundStatus.REFUSED


def test_after_a_failed_round_the_version_goes_and_no_other_round_starts(
    studio: TrainingStudio, make_scheduler: MakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = make_scheduler(withdrawn_votes=2)
    learned = first_version(studio)

    def broken(*_arguments: Any, **_named: Any) -> None:
        raise RoundFailedError("no memory")

    monkeypatch.setattr(round_runner.RoundRunner, "run_slice", broken)
    withdraw(studio, learned[:2])
    assert scheduler.tick() is Tick.FAILED
    assert studio.store.rounds.get(2).trigger is Trigger.WITHDRAWAL
    settle(scheduler)
    withdraw(studio, learned[2:4])
    settle(scheduler)
    assert [state.status for state in studio.store.rounds.list(studio.base)][1:] == [RoundStatus.FAILED]
    assert studio.store.adapters.live_version(studio.base) == 0


def test_a_warm_start_does_not_carry_withdrawn_votes_on(studio: TrainingStudio, denoiser: Denoiser) -> None:
    warm = FAST.model_copy(update={"num_steps": 2, "warm_start": True})
    studio.add_pairs(20)
    votes = studio.vote(8)
    configs = []
    for number in range(2):
        if number == 1:
            withdraw(studio, votes[:1])
        round_id, token = studio.start(settings=warm)
        studio.run(denoiser, round_id, token)
        studio.store.lease.release(studio.base, token)
        configs.append(studio.store.rounds.get(round_id).config["settings"]["warm_start"])
    assert configs == [True, False]
    assert studio.store.taken_back.counts(studio.base) == {1: 1}


def test_votes_withdrawn_amid_a_round_are_left_out_by_the_next(
    studio: TrainingStudio, make_scheduler: MakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = make_scheduler(withdrawn_votes=1)
    studio.add_pairs(24)
    studio.vote(MIN_VOTES)
    finish = round_runner.RoundRunner._finish

    def withdraw_first(self: round_runner.RoundRunner) -> None:
        if studio.store.adapters.live_version(studio.base) == 0:
            withdraw(studio, list(self._plan.train_vote_ids[:1]))
        finish(self)

    monkeypatch.setattr(round_runner.RoundRunner, "_finish", withdraw_first)
    assert scheduler.tick() is Tick.TRAINED
    assert studio.store.taken_back.counts(studio.base) == {1: 1}
    assert scheduler.tick() is Tick.TRAINED
    assert studio.store.adapters.live_version(studio.base) == 2
    assert studio.store.taken_back.counts(studio.base) == {1: 1}

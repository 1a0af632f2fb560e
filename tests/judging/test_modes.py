"""The way to the live version in each mode: by held-out votes, by duels, and by an administrator's hand."""

import threading

import pytest

from dmpo_app.domain.judging import Comparison, Evidence, NewVerdict, Verdict, VerdictAction, VersionState
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Annotator
from dmpo_app.errors import BadInputError
from dmpo_app.judging.decision_thread import DecisionThread
from dmpo_app.judging.service import MAX_AGE_SECONDS, JudgingService, verdict_sentence
from dmpo_app.settings import JudgingSettings
from dmpo_app.store import Store
from tests.judging.judged_versions import judge, judging, proof, publish
from tests.patience import wait_until
from tests.store.store_data import new_pair, vote_once
from tests.store.store_fixtures import reopened


def states(store: Store, base: BaseModelRef) -> dict[int, str]:
    return {version: state.value for version, state in sorted(store.adapters.states(base).items())}


def actions(store: Store, base: BaseModelRef) -> list[tuple[int, int, str]]:
    return [(one.version, one.other_version, one.action.value) for one in reversed(store.verdicts.list(base))]


def test_a_held_version_goes_live_once_people_prefer_it(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    service = judging(store, base, "hold")
    held = publish(store, base, is_held=True)
    assert (held.is_held, store.adapters.live_version(base), store.adapters.candidate(base)) == (True, 0, 1)
    assert store.duels.comparisons(base) == [Comparison(1, 0)]
    [shown] = service.state().comparisons
    assert shown.sentence == "nobody has judged version 1 against the base model yet"
    assert shown.consequence == "version 1 goes live once it is proven better"
    judge(store, base, anna, 1, 0, count=3)
    assert service.decide() is VerdictAction.NONE
    [shown] = service.state().comparisons
    assert shown.sentence.startswith("3 of 3 prefer version 1; about ")
    assert shown.sentence.endswith("more to be sure (one person's judgement)")
    judge(store, base, anna, 1, 0)
    assert service.decide() is VerdictAction.PROMOTED
    assert (store.adapters.live_version(base), store.adapters.candidate(base)) == (1, None)
    verdict = store.verdicts.latest(base, 1)
    assert verdict is not None
    assert (verdict.verdict, verdict.evidence) == (Verdict.BETTER, Evidence.DUELS)
    assert (verdict.numbers["num_judgements"], verdict.numbers["num_preferring"]) == (15, 15)
    assert verdict_sentence(verdict) == "Version 1 went live: better than the base model by people's duels"
    entry = store.audit.list()[0]
    assert (entry.actor, entry.act, entry.subject) == ("duels", "promote", "version 1 against version 0")
    assert service.decide() is VerdictAction.NONE
    assert actions(store, base) == [(1, 0, "promoted")]


def test_a_held_version_that_people_do_not_prefer_is_rejected_and_the_one_before_it_judged_again(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    service = judging(store, base, "hold")
    publish(store, base, is_held=True)
    publish(store, base, is_held=True)
    assert states(store, base) == {0: "live", 1: "superseded", 2: "candidate"}
    judge(store, base, anna, 0, 2)
    assert service.decide() is VerdictAction.REJECTED
    assert states(store, base) == {0: "live", 1: "candidate", 2: "rejected"}
    assert service.decide() is VerdictAction.NONE
    assert store.adapters.live_version(base) == 0
    [verdict] = store.verdicts.list(base)
    assert verdict_sentence(verdict) == "Version 2 stays held back: worse than the base model by people's duels"
    publish(store, base)
    assert states(store, base) == {0: "past", 1: "superseded", 2: "rejected", 3: "live"}
    assert store.adapters.candidate(base) is None


def test_a_version_that_turned_votes_made_live_is_rolled_back_though_the_mode_holds_versions_back(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    publish(store, base, is_held=True, proof=proof(Verdict.BETTER, 0))
    service = judging(store, base, "hold")
    judge(store, base, anna, 0, 1)
    [shown] = service.state().comparisons
    assert shown.consequence == "the base model comes back"
    assert service.decide() is VerdictAction.ROLLED_BACK
    assert actions(store, base)[-1] == (1, 0, "rolled_back")
    assert store.adapters.live_version(base) == 0


def test_held_out_votes_that_prove_a_version_better_make_it_live_at_once(store: Store, base: BaseModelRef) -> None:
    assert not publish(store, base, is_held=True, proof=proof(Verdict.BETTER, 0)).is_held
    assert store.adapters.live_version(base) == 1
    assert publish(store, base, is_held=True, proof=proof(Verdict.UNSURE, 1)).is_held
    # The votes were about another version than the one that is live by now.
    assert publish(store, base, is_held=True, proof=proof(Verdict.BETTER, 0)).is_held
    assert states(store, base) == {0: "past", 1: "live", 2: "superseded", 3: "candidate"}
    [verdict] = store.verdicts.list(base)
    assert (verdict.version, verdict.evidence, verdict.action) == (1, Evidence.HELD_OUT, VerdictAction.PROMOTED)
    assert store.audit.list()[0].actor == "held-out votes"
    assert not publish(store, base, proof=proof(Verdict.BETTER, 1)).is_held
    assert len(store.verdicts.list(base)) == 1, "nothing is held back in the other modes, so nothing is promoted"


def test_a_live_version_that_is_proven_worse_is_rolled_back_and_stays_so(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    service = judging(store, base, "rollback")
    publish(store, base)
    publish(store, base)
    judge(store, base, anna, 1, 2)
    shown = service.state().comparisons[0]
    assert (shown.version, shown.other_version, shown.consequence) == (2, 1, "version 1 comes back")
    assert service.decide() is VerdictAction.ROLLED_BACK
    assert states(store, base) == {0: "past", 1: "live", 2: "rolled_back"}
    assert store.duels.comparisons(base) == [Comparison(1, 0)]
    [verdict] = store.verdicts.list(base)
    assert verdict_sentence(verdict) == "Version 1 came back: version 2 is worse than version 1 by people's duels"
    judge(store, base, ben, 1, 0)
    for _ in range(3):
        assert service.decide() is VerdictAction.NONE
    assert store.adapters.live_version(base) == 1
    assert publish(store, base).parent == 1
    assert store.adapters.version_before(base, 3) == 1
    judge(store, base, anna, 1, 3)
    assert service.decide() is VerdictAction.ROLLED_BACK
    assert actions(store, base) == [(2, 1, "rolled_back"), (3, 1, "rolled_back")]


def test_going_back_ends_at_the_base_model(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    service = judging(store, base, "rollback")
    publish(store, base)
    judge(store, base, anna, 0, 1)
    assert service.decide() is VerdictAction.ROLLED_BACK
    assert (store.adapters.live_version(base), service.decide()) == (0, VerdictAction.NONE)
    assert service.state().comparisons == ()


def test_in_the_mode_publish_duels_only_inform(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    service = judging(store, base, "publish")
    publish(store, base)
    judge(store, base, anna, 0, 1)
    assert service.decide() is VerdictAction.NONE
    assert (store.adapters.live_version(base), store.verdicts.list(base)) == (1, [])
    [shown] = service.state().comparisons
    assert "worse than the base model" in shown.sentence
    assert shown.consequence == "nothing follows from it by itself"


def test_what_an_administrator_made_live_stays(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    service = judging(store, base, "rollback")
    publish(store, base)
    judge(store, base, anna, 0, 1)
    store.adapters.set_live(base, 0, "administrator")
    store.adapters.set_live(base, 1, "administrator")
    assert service.decide() is VerdictAction.NONE
    assert store.adapters.live_version(base) == 1
    [shown] = service.state().comparisons
    assert shown.consequence == "an administrator chose version 1, so it stays"


def test_a_version_that_learned_from_withdrawn_votes_does_not_come_back(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    service = judging(store, base, "rollback")
    store.pairs.add(base, new_pair())
    vote_id = vote_once(store, base, ben)[1].vote_id
    publish(store, base, votes=[vote_id])
    publish(store, base)
    assert store.own_votes.withdraw(vote_id, ben.id)
    judge(store, base, anna, 1, 2)
    assert service.decide() is VerdictAction.NONE
    assert store.adapters.live_version(base) == 2
    shown = service.state().comparisons[0]
    assert shown.consequence == "version 1 learned from votes that were taken back, so it does not come back"


def test_a_held_version_can_be_made_live_by_hand_and_taken_off_again(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    service = judging(store, base, "hold")
    publish(store, base, is_held=True)
    judge(store, base, anna, 1, 0)
    store.adapters.set_live(base, 1, "administrator")
    assert states(store, base) == {0: "past", 1: "live"}
    store.adapters.set_live(base, 0, "administrator")
    assert states(store, base) == {0: "live", 1: "past"}
    assert service.decide() is VerdictAction.NONE, "a version that was taken off by hand does not come back by itself"


def test_of_two_who_decide_at_once_one_does(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    publish(store, base)
    publish(store, base, is_held=True)
    judge(store, base, anna, 2, 1)
    with reopened(store) as other:
        deciders = [judging(one, base, "hold") for one in (store, other, store, other)]
        done: list[VerdictAction] = []
        barrier = threading.Barrier(len(deciders))

        def decide(service: JudgingService) -> None:
            barrier.wait()
            done.append(service.decide())

        threads = [threading.Thread(target=decide, args=(one,)) for one in deciders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(done) == [VerdictAction.NONE] * 3 + [VerdictAction.PROMOTED]
    assert actions(store, base) == [(2, 1, "promoted")]


def test_a_verdict_about_another_live_version_decides_nothing(store: Store, base: BaseModelRef) -> None:
    publish(store, base)
    publish(store, base, is_held=True)
    about_1 = NewVerdict(2, 1, Verdict.BETTER, Evidence.DUELS, {})
    store.adapters.set_live(base, 0, "administrator")
    assert not store.adapters.promote(base, about_1)
    assert not store.adapters.reject(base, NewVerdict(2, 1, Verdict.WORSE, Evidence.DUELS, {}))
    assert not store.adapters.roll_back(base, NewVerdict(1, 0, Verdict.WORSE, Evidence.DUELS, {}))
    assert (store.verdicts.list(base), store.adapters.candidate(base)) == ([], 2)
    with pytest.raises(BadInputError, match="found better"):
        store.adapters.reject(base, about_1)


def test_judgements_that_are_taken_back_undo_no_decision(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    service = judging(store, base, "hold")
    publish(store, base, is_held=True)
    votes = judge(store, base, anna, 1, 0)
    assert service.decide() is VerdictAction.PROMOTED
    for vote_id in reversed(votes[-3:]):
        store.votes.undo(vote_id, anna.id)
    assert service.decide() is VerdictAction.NONE
    assert store.adapters.live_version(base) == 1
    [shown] = service.state().comparisons
    assert shown.test.num_judgements == 9


def test_a_judgement_taken_back_before_the_decision_is_as_if_it_had_not_been_given(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    service = judging(store, base, "hold")
    publish(store, base, is_held=True)
    votes = judge(store, base, anna, 1, 0)
    assert service.state().comparisons[0].test.verdict is Verdict.BETTER
    for vote_id in reversed(votes[-3:]):
        store.votes.undo(vote_id, anna.id)
    before = service.state().comparisons[0].test
    assert before.num_judgements == 9


def test_a_struck_annotators_judgements_are_left_out_after_a_while(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    seconds = 0.0
    service = JudgingService(store, base, JudgingSettings(mode="hold"), clock=lambda: seconds)
    publish(store, base, is_held=True)
    judge(store, base, anna, 1, 0, count=5)
    assert service.state().comparisons[0].test.num_judgements == 5
    store.strikes.strike(anna.id, by="administrator")
    seconds = MAX_AGE_SECONDS
    assert service.state().comparisons[0].test.num_judgements == 0


def test_the_thread_decides_at_its_start_and_when_it_is_woken(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    publish(store, base)
    judge(store, base, anna, 0, 1)
    thread = DecisionThread(judging(store, base, "rollback"))
    thread.start()
    try:
        wait_until(lambda: store.adapters.live_version(base) == 0, "the version is rolled back")
        publish(store, base)
        judge(store, base, anna, 0, 2)
        thread.wake()
        wait_until(lambda: store.adapters.live_version(base) == 0, "the version is rolled back")
    finally:
        thread.stop()
    assert store.adapters.states(base)[2] is VersionState.ROLLED_BACK


def test_the_thread_outlives_a_store_that_fails(store: Store, base: BaseModelRef) -> None:
    class Failing(JudgingService):
        calls = 0

        def decide(self) -> VerdictAction:
            self.calls += 1
            raise OSError("gone")

    service = Failing(store, base, JudgingSettings())
    thread = DecisionThread(service)
    thread.tick()
    thread.tick()
    assert service.calls == 2

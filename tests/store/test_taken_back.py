"""Versions that learned from votes which were taken back since: found, counted, and followed through warm starts."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from dmpo_app.domain.campaign import ReportReason, ReportRules
from dmpo_app.domain.lineage import BaseModelRef, TakenBack, Trigger
from dmpo_app.domain.vote import Annotator
from dmpo_app.store import Store
from tests.store.store_data import Clock, issue, new_adapter, new_pair, vote_once


@pytest.fixture(autouse=True)
def pairs(store: Store, base: BaseModelRef) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(24)])


def publish(
    store: Store,
    base: BaseModelRef,
    votes: Sequence[int],
    *,
    parent: int = 0,
    warm_start: bool = False,
    trigger: Trigger = Trigger.VOTES,
) -> int:
    """A version trained on these votes, and live."""
    token = store.lease.acquire(base, "publisher", lease_seconds=30)
    assert token is not None
    state = store.rounds.start(
        base,
        None,
        trigger=trigger,
        seed=7,
        steps=10,
        config={"settings": {"warm_start": warm_start}},
        votes=[(vote_id, False) for vote_id in votes],
        parent_version=parent,
        token=token,
    )
    name = f"{store.adapters.next_version(base):05d}-aaaaaaaa"
    published = store.rounds.publish(state.id, new_adapter(list(votes), folder_name=name, parent=parent), token=token)
    store.lease.release(base, token)
    return published.version


def vote_times(store: Store, base: BaseModelRef, annotator: Annotator, count: int) -> list[int]:
    return [vote_once(store, base, annotator)[1].vote_id for _ in range(count)]


def test_a_version_holds_the_votes_that_its_voters_undid_or_withdrew(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    annas, bens = vote_times(store, base, anna, 4), vote_times(store, base, ben, 2)
    publish(store, base, annas[:2])
    publish(store, base, [*annas, *bens])
    assert store.taken_back.counts(base) == {}
    store.own_votes.withdraw(annas[0], anna.id)
    store.votes.undo(annas[3], anna.id)
    store.own_votes.withdraw(bens[0], ben.id)
    assert store.taken_back.counts(base) == {1: 1, 2: 3}
    assert [store.taken_back.count(base, version) for version in (0, 1, 2)] == [0, 1, 3]
    assert store.taken_back.versions_of(base, anna.id) == [1, 2]
    assert store.taken_back.versions_of(base, ben.id) == [2]


def test_votes_of_a_struck_annotator_are_counted_until_they_are_restored(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    annas, bens = vote_times(store, base, anna, 3), vote_times(store, base, ben, 2)
    publish(store, base, [*annas, *bens])
    store.own_votes.withdraw(annas[0], anna.id)
    store.strikes.strike(anna.id, by="administrator")
    assert store.taken_back.counts(base) == {1: 3}, "no vote is counted twice"
    store.strikes.restore(anna.id, by="administrator")
    assert store.taken_back.counts(base) == {1: 1}


def test_votes_on_a_pair_that_reports_have_retired_are_counted(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    assignment, vote = vote_once(store, base, anna)
    others = vote_times(store, base, anna, 2)
    publish(store, base, [vote.vote_id, *others])
    same_pair = next(one for one in issue(store, base, ben, 24) if one.pair_id == assignment.pair_id)
    rules = ReportRules(reports_to_retire=1)
    store.reports.add(same_pair.id, ben.id, ReportReason.OTHER, None, rules=rules)
    assert store.taken_back.counts(base) == {1: 1}


def test_a_version_that_started_from_another_s_weights_holds_what_that_one_holds(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    votes = vote_times(store, base, anna, 6)
    first = publish(store, base, votes[:3])
    second = publish(store, base, votes[2:5], parent=first, warm_start=True)
    third = publish(store, base, votes[5:], parent=second, warm_start=True)
    fresh = publish(store, base, votes[5:], parent=third)
    for vote_id in votes[:4]:
        store.own_votes.withdraw(vote_id, anna.id)
    assert store.taken_back.counts(base) == {first: 3, second: 4, third: 4}, "each vote once"
    assert [store.taken_back.count(base, version) for version in (first, second, third, fresh)] == [3, 4, 4, 0]
    assert store.taken_back.versions_of(base, anna.id) == [first, second, third]


def test_only_votes_taken_back_after_a_time_are_counted_where_one_is_given(
    store: Store, base: BaseModelRef, anna: Annotator, clock: Clock
) -> None:
    votes = vote_times(store, base, anna, 4)
    publish(store, base, votes)
    store.own_votes.withdraw(votes[0], anna.id)
    clock.advance(timedelta(minutes=1))
    moment = clock()
    assert store.taken_back.count(base, 1, since=moment) == 0
    clock.advance(timedelta(minutes=1))
    store.own_votes.withdraw(votes[1], anna.id)
    assert store.taken_back.count(base, 1, since=moment) == 1
    assert store.taken_back.count(base, 1) == 2


def test_the_newest_clean_version_is_one_that_was_live_before(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    annas, bens = vote_times(store, base, anna, 2), vote_times(store, base, ben, 2)
    publish(store, base, annas)
    publish(store, base, bens)
    publish(store, base, [*annas, *bens])
    store.own_votes.withdraw_all(ben.id)
    assert store.taken_back.newest_clean(base, before=3) == 1
    store.own_votes.withdraw_all(anna.id)
    assert store.taken_back.newest_clean(base, before=3) == 0


def test_versions_are_listed_over_all_lineages_with_the_live_ones_marked(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    votes = vote_times(store, base, anna, 2)
    publish(store, base, votes)
    publish(store, base, votes)
    store.models.register("another", "stable-diffusion", "e" * 64)
    store.own_votes.withdraw(votes[0], anna.id)
    assert store.taken_back.list_versions() == [
        TakenBack("pocket", 1, 1, is_live=False),
        TakenBack("pocket", 2, 1, is_live=True),
    ]


def test_the_last_round_for_a_withdrawal_is_known_by_its_time(
    store: Store, base: BaseModelRef, anna: Annotator, clock: Clock
) -> None:
    votes = vote_times(store, base, anna, 2)
    publish(store, base, votes)
    assert store.taken_back.last_attempt(base) is None
    clock.advance(timedelta(minutes=1))
    asked_at = clock()
    publish(store, base, votes, trigger=Trigger.WITHDRAWAL)
    clock.advance(timedelta(minutes=1))
    publish(store, base, votes)
    assert store.taken_back.last_attempt(base) == asked_at

import math
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from dmpo_app.domain.lineage import BaseModelRef, RoundProgress, RoundStatus, Trigger
from dmpo_app.domain.vote import Annotator, Choice
from dmpo_app.errors import BadInputError, ConflictError, LeaseLostError, NotFoundError
from dmpo_app.store import Store
from dmpo_app.store.db.column_types import from_microseconds
from tests.store.store_data import Clock, new_adapter, new_pair, publish_version, scalar, start_round, vote_once


@pytest.fixture
def votes(store: Store, base: BaseModelRef, anna: Annotator) -> list[int]:
    store.pairs.add_many(base, [new_pair(number) for number in range(6)])
    return [vote_once(store, base, anna)[1].vote_id for _ in range(4)]


@pytest.fixture
def token(store: Store, base: BaseModelRef) -> int:
    acquired = store.lease.acquire(base, "trainer", lease_seconds=30)
    assert acquired is not None
    return acquired


def test_a_requested_round_waits_for_the_trainer(
    store: Store, base: BaseModelRef, votes: list[int], token: int
) -> None:
    asked = store.rounds.request(base, Trigger.REQUEST)
    assert (asked.status, asked.trigger, asked.started_at) == (RoundStatus.QUEUED, Trigger.REQUEST, None)
    assert store.rounds.current(base) == asked
    started = store.rounds.start(
        base,
        asked.id,
        trigger=Trigger.VOTES,
        seed=3,
        steps=40,
        config={"beta": 2000.0, "modules": ["to_q"]},
        votes=[(votes[0], False), (votes[2], True)],
        parent_version=0,
        token=token,
    )
    assert started.id == asked.id
    assert (started.status, started.seed, started.steps, started.attempts) == (RoundStatus.RUNNING, 3, 40, 1)
    assert (started.num_votes, started.last_vote_id) == (2, votes[2])
    assert started.trigger is Trigger.REQUEST
    assert started.config == {"beta": 2000.0, "modules": ["to_q"]}
    assert store.rounds.votes(asked.id) == [(votes[0], False), (votes[2], True)]
    assert store.rounds.get(asked.id) == store.rounds.current(base) == started


def test_one_round_at_a_time(store: Store, base: BaseModelRef, votes: list[int], token: int) -> None:
    first = store.rounds.request(base, Trigger.REQUEST)
    with pytest.raises(ConflictError, match=f"round {first.id} is queued"):
        store.rounds.request(base, Trigger.REQUEST)
    with pytest.raises(ConflictError, match="queued"):
        start_round(store, base, token, votes)
    other = store.models.register("other", "stable-diffusion", "e" * 64)
    with pytest.raises(ConflictError, match="at least 2"):
        store.rounds.request(other, Trigger.REQUEST)
    assert [one.id for one in store.rounds.list(base)] == [first.id]


def test_a_round_needs_enough_preferences(store: Store, base: BaseModelRef, anna: Annotator, votes: list[int]) -> None:
    vote_once(store, base, anna, Choice.SKIP)
    with pytest.raises(ConflictError, match=r"at least 5.*there are 4"):
        store.rounds.request(base, Trigger.REQUEST, min_preferences=5)
    assert store.rounds.request(base, Trigger.REQUEST, min_preferences=4).status is RoundStatus.QUEUED


def test_only_the_first_start_fixes_what_a_round_is(
    store: Store, base: BaseModelRef, votes: list[int], token: int
) -> None:
    first = start_round(store, base, token, votes[:2])
    again = store.rounds.start(
        base,
        first.id,
        trigger=Trigger.PERIOD,
        seed=99,
        steps=99,
        config={"rank": 99},
        votes=[(vote_id, True) for vote_id in votes],
        parent_version=0,
        token=token,
    )
    assert (again.seed, again.steps, again.config, again.num_votes) == (7, 10, {"rank": 8}, 2)
    assert again.attempts == 2
    assert store.rounds.votes(first.id) == [(votes[0], False), (votes[1], False)]


def test_progress_is_kept_by_step_and_a_repeated_step_replaces_itself(
    store: Store, base: BaseModelRef, votes: list[int], token: int
) -> None:
    round_id = start_round(store, base, token, votes).id
    store.rounds.record(round_id, RoundProgress(1, 0.7, 0.0, 0.5, 9.0), token=token)
    store.rounds.record(round_id, RoundProgress(2, 0.6, 0.1, 0.6, 8.0), token=token)
    better = RoundProgress(2, 0.5, 0.2, 0.7, 8.0, held_out_loss=0.65)
    store.rounds.record(round_id, better, token=token)
    assert store.rounds.list_progress(round_id) == [RoundProgress(1, 0.7, 0.0, 0.5, 9.0), better]
    now = store.rounds.get(round_id)
    assert (now.step, now.loss, now.margin, now.accuracy, now.eta_seconds) == (2, 0.5, 0.2, 0.7, 8.0)
    with pytest.raises(BadInputError, match="not finite"):
        store.rounds.record(round_id, RoundProgress(3, math.nan, 0.2, 0.7, 8.0), token=token)
    with pytest.raises(NotFoundError):
        store.rounds.record(round_id + 1, better, token=token)


def test_publishing_records_everything_at_once_and_goes_live(
    store: Store, base: BaseModelRef, votes: list[int], token: int, clock: Clock
) -> None:
    assert store.adapters.live_version(base) == 0
    assert store.adapters.next_version(base) == 1
    round_id = start_round(store, base, token, votes).id
    published = store.rounds.publish(round_id, new_adapter(votes[:3]), token=token)
    assert (published.version, published.parent, published.round_id) == (1, 0, round_id)
    assert published.folder == store.home / "adapters" / base.fingerprint[:12] / "00001-aaaaaaaa"
    assert published.folder.parent == store.adapters.root(base)
    assert (published.num_votes, published.metrics, published.created_at) == (3, {"accuracy": 0.75}, clock())
    assert store.adapters.vote_ids(base, 1) == votes[:3]
    assert store.adapters.live_version(base) == 1
    assert store.adapters.next_version(base) == 2
    assert store.adapters.get(base, 1) == published
    assert store.adapters.list(base) == [published]
    assert store.rounds.current(base) is None
    last = store.rounds.last(base)
    assert last is not None
    assert (last.status, last.adapter_version, last.finished_at) == (RoundStatus.PUBLISHED, 1, clock())
    assert scalar(store, "SELECT CAST(config AS TEXT) FROM adapters WHERE version = 1") == '{"rank": 8}'


def test_publishing_again_answers_the_same_and_writes_nothing(
    store: Store, base: BaseModelRef, votes: list[int], token: int
) -> None:
    round_id = start_round(store, base, token, votes).id
    published = store.rounds.publish(round_id, new_adapter(votes), token=token)
    store.adapters.set_live(base, 0, "admin")
    assert store.rounds.publish(round_id, new_adapter(votes, folder_name="00002-bbbbbbbb"), token=token) == published
    assert store.adapters.list(base) == [published]
    assert store.adapters.live_version(base) == 0, "a rollback in the meantime stands"


def test_threads_that_publish_one_round_at_once_make_one_version(
    store: Store, base: BaseModelRef, votes: list[int], token: int
) -> None:
    round_id = start_round(store, base, token, votes).id
    versions: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: versions.append(store.rounds.publish(round_id, new_adapter(votes), token=token).version)
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions == [1] * 8
    assert scalar(store, "SELECT count(*) FROM live_changes") == 1


def test_a_publication_that_fails_halfway_leaves_nothing(
    store: Store, base: BaseModelRef, votes: list[int], token: int
) -> None:
    round_id = start_round(store, base, token, votes).id
    with pytest.raises(Exception, match=r"FOREIGN KEY|foreign key"):
        store.rounds.publish(round_id, new_adapter([*votes, 999]), token=token)
    assert store.adapters.list(base) == []
    assert store.adapters.live_version(base) == 0
    assert store.rounds.get(round_id).status is RoundStatus.RUNNING
    assert store.rounds.publish(round_id, new_adapter(votes), token=token).version == 1


def test_a_trainer_that_lost_its_lease_writes_nothing(
    store: Store, base: BaseModelRef, votes: list[int], token: int, clock: Clock
) -> None:
    running = start_round(store, base, token, votes)
    clock.advance(timedelta(seconds=31))
    successor = store.lease.acquire(base, "another trainer", lease_seconds=30)
    assert successor is not None
    assert successor > token
    writes: list[Callable[[], object]] = [
        lambda: store.rounds.record(running.id, RoundProgress(1, 0.5, 0.1, 0.6, 1.0), token=token),
        lambda: store.rounds.publish(running.id, new_adapter(votes), token=token),
        lambda: store.rounds.refuse(running.id, "worse", token=token),
        lambda: store.rounds.fail(running.id, "out of memory", token=token, final=True),
        lambda: start_round(store, base, token, votes),
        lambda: store.lease.renew(base, token),
        lambda: store.lease.release(base, token),
    ]
    for write in writes:
        with pytest.raises(LeaseLostError, match="another trainer"):
            write()
    assert store.rounds.get(running.id) == running
    assert store.rounds.list_progress(running.id) == []
    assert store.adapters.list(base) == []
    assert store.rounds.publish(running.id, new_adapter(votes), token=successor).version == 1


def test_a_lease_is_one_owner_s_while_it_is_fresh(store: Store, base: BaseModelRef, clock: Clock) -> None:
    first = store.lease.acquire(base, "one", lease_seconds=10)
    assert first == 1
    assert store.lease.acquire(base, "two", lease_seconds=10) is None
    clock.advance(timedelta(seconds=9))
    store.lease.renew(base, first)
    clock.advance(timedelta(seconds=9))
    assert store.lease.acquire(base, "two", lease_seconds=10) is None
    store.lease.release(base, first)
    assert store.lease.acquire(base, "two", lease_seconds=10) == 2
    with pytest.raises(LeaseLostError):
        store.lease.renew(base, first)
    assert store.lease.acquire(base, "two", lease_seconds=10) == 3, "a restarted owner need not wait for itself"
    clock.advance(timedelta(seconds=10))
    assert store.lease.acquire(base, "one", lease_seconds=10) == 4


def test_a_released_token_is_good_for_nothing(store: Store, base: BaseModelRef, votes: list[int], token: int) -> None:
    round_id = start_round(store, base, token, votes).id
    store.lease.release(base, token)
    with pytest.raises(LeaseLostError, match="nobody"):
        store.rounds.publish(round_id, new_adapter(votes), token=token)


def test_a_late_renewal_counts_as_long_as_nobody_took_over(store: Store, base: BaseModelRef, clock: Clock) -> None:
    token = store.lease.acquire(base, "one", lease_seconds=10)
    assert token is not None
    clock.advance(timedelta(hours=1))
    store.lease.renew(base, token)
    assert store.lease.acquire(base, "two", lease_seconds=10) is None


def test_leases_of_two_lineages_are_independent(store: Store, base: BaseModelRef) -> None:
    other = store.models.register("other", "stable-diffusion", "e" * 64)
    assert store.lease.acquire(base, "one", lease_seconds=10) == 1
    assert store.lease.acquire(other, "two", lease_seconds=10) == 1


def test_a_failed_attempt_is_queued_again_and_a_final_failure_is_not(
    store: Store, base: BaseModelRef, votes: list[int], token: int
) -> None:
    round_id = start_round(store, base, token, votes).id
    store.rounds.fail(round_id, "out of memory", token=token, final=False)
    queued = store.rounds.current(base)
    assert queued is not None
    assert (queued.id, queued.status, queued.attempts, queued.reason) == (
        round_id,
        RoundStatus.QUEUED,
        1,
        "out of memory",
    )
    again = store.rounds.start(
        base, round_id, trigger=Trigger.VOTES, seed=1, steps=1, config={}, votes=[], parent_version=0, token=token
    )
    assert (again.attempts, again.seed) == (2, 7)
    store.rounds.fail(round_id, "out of memory again", token=token, final=True)
    last = store.rounds.last(base)
    assert last is not None
    assert (last.status, last.reason, last.attempts) == (RoundStatus.FAILED, "out of memory again", 2)
    for late in (
        lambda: store.rounds.publish(round_id, new_adapter(votes), token=token),
        lambda: store.rounds.refuse(round_id, "worse", token=token),
        lambda: store.rounds.fail(round_id, "again", token=token, final=True),
    ):
        with pytest.raises(ConflictError, match="failed"):
            late()


def test_a_round_that_could_not_even_start_does_not_start_again_at_once(
    store: Store, base: BaseModelRef, votes: list[int], token: int
) -> None:
    round_id = store.rounds.request(base, Trigger.REQUEST).id
    store.rounds.fail(round_id, "the votes could not be read", token=token, final=True)
    assert store.votes.new_preferences(base).count == 0


def test_a_refused_round_keeps_its_reason_and_the_live_version(
    store: Store, base: BaseModelRef, votes: list[int], token: int
) -> None:
    publish_round = start_round(store, base, token, votes).id
    store.rounds.publish(publish_round, new_adapter(votes), token=token)
    round_id = start_round(store, base, token, votes).id
    store.rounds.refuse(round_id, "worse than version 1 on the votes held out", token=token)
    last = store.rounds.last(base)
    assert last is not None
    assert (last.id, last.status, last.reason) == (
        round_id,
        RoundStatus.REFUSED,
        "worse than version 1 on the votes held out",
    )
    assert store.adapters.live_version(base) == 1


def test_any_version_can_be_made_live_again_and_history_tells(store: Store, base: BaseModelRef, clock: Clock) -> None:
    for _ in range(2):
        publish_version(store, base)
    clock.advance(timedelta(minutes=5))
    store.adapters.set_live(base, 1, "admin")
    store.adapters.set_live(base, 1, "admin")
    store.adapters.set_live(base, 0, "command line")
    with pytest.raises(NotFoundError, match="no version 7; the newest is 2"):
        store.adapters.set_live(base, 7, "admin")
    with pytest.raises(NotFoundError):
        store.adapters.get(base, 0)
    changes = store.read("SELECT version, by, created_at FROM live_changes ORDER BY id")
    assert [(change.version, change.by) for change in changes] == [
        (1, "round 1"),
        (2, "round 2"),
        (1, "admin"),
        (0, "command line"),
    ]
    assert from_microseconds(changes[-1].created_at) == clock()
    assert store.adapters.live_version(base) == 0
    assert publish_version(store, base) == 3
    assert store.adapters.live_version(base) == 3


def test_two_lineages_number_their_versions_apart(store: Store, base: BaseModelRef) -> None:
    other = store.models.register("other", "stable-diffusion", "e" * 64)
    assert [publish_version(store, lineage) for lineage in (base, other, base)] == [1, 1, 2]
    assert store.adapters.root(base) != store.adapters.root(other)
    assert [adapter.version for adapter in store.adapters.list(other)] == [1]

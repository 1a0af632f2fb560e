from datetime import timedelta

import pytest

from dmpo_app.domain.lineage import BaseModelRef, NewPreferences
from dmpo_app.domain.vote import Annotator, Choice, Outcome
from dmpo_app.errors import ConflictError, ExpiredError, ForbiddenError, NotFoundError
from dmpo_app.store import Store
from tests.store.store_data import HOUR, Clock, issue, new_adapter, new_pair, scalar, start_round, vote_once


@pytest.fixture(autouse=True)
def pairs(store: Store, base: BaseModelRef) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(16)])


def test_the_same_answer_again_is_the_same_vote(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    assignment, vote = vote_once(store, base, anna, Choice.RIGHT)
    assert vote.is_new
    again = store.votes.record(assignment.id, anna.id, Choice.RIGHT, 99)
    assert (again.vote_id, again.is_new) == (vote.vote_id, False)
    assert store.votes.count(base) == 1


def test_another_answer_contradicts(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    assignment, _ = vote_once(store, base, anna, Choice.RIGHT)
    with pytest.raises(ConflictError, match="'right' already"):
        store.votes.record(assignment.id, anna.id, Choice.LEFT, 99)


def test_an_answer_given_in_time_can_be_sent_again_later(
    store: Store, base: BaseModelRef, anna: Annotator, clock: Clock
) -> None:
    assignment, vote = vote_once(store, base, anna, Choice.TIE)
    clock.advance(10 * HOUR)
    issue(store, base, anna, 2)  # closes whatever has expired
    assert store.votes.record(assignment.id, anna.id, Choice.TIE, 10).vote_id == vote.vote_id
    with pytest.raises(ConflictError):
        store.votes.record(assignment.id, anna.id, Choice.LEFT, 10)


def test_unknown_foreign_and_expired_assignments_take_no_vote(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator, clock: Clock
) -> None:
    assignment = issue(store, base, anna)[0]
    with pytest.raises(NotFoundError):
        store.votes.record("made up", anna.id, Choice.LEFT, 10)
    with pytest.raises(ForbiddenError):
        store.votes.record(assignment.id, ben.id, Choice.LEFT, 10)
    clock.advance(HOUR)
    with pytest.raises(ExpiredError):
        store.votes.record(assignment.id, anna.id, Choice.LEFT, 10)
    assert scalar(store, "SELECT count(*) FROM votes") == 0


def test_a_side_becomes_the_image_that_stood_there(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    chosen = {}
    for assignment, choice in zip(issue(store, base, anna, 8), [Choice.LEFT, Choice.RIGHT] * 4, strict=True):
        vote = store.votes.record(assignment.id, anna.id, choice, 10)
        chosen[vote.vote_id] = assignment.left_image_id if choice is Choice.LEFT else assignment.right_image_id
    for trained in store.votes.training_votes(base):
        pair = store.pairs.get(trained.pair_id)
        assert (pair.image_a.id if trained.outcome is Outcome.A else pair.image_b.id) == chosen[trained.vote_id]


def test_the_raw_answer_is_kept(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    vote_once(store, base, anna, Choice.BOTH_BAD)
    assert scalar(store, "SELECT choice || ' ' || outcome || ' ' || elapsed_ms FROM votes") == "both_bad both_bad 1500"


def test_a_vote_taken_back_is_stamped_and_its_pair_can_be_judged_anew(
    store: Store, base: BaseModelRef, anna: Annotator, clock: Clock
) -> None:
    assignment, vote = vote_once(store, base, anna, Choice.LEFT)
    clock.advance(HOUR / 2)
    store.votes.undo(vote.vote_id, anna.id)
    assert store.votes.count(base) == 0
    reopened = issue(store, base, anna)[0]
    assert (reopened.id, reopened.a_on_left) == (assignment.id, assignment.a_on_left)
    assert reopened.expires_at == clock() + HOUR, "as long as when it was issued"
    clock.advance(0.9 * HOUR)
    second = store.votes.record(assignment.id, anna.id, Choice.RIGHT, 10)
    assert second.is_new
    assert second.vote_id > vote.vote_id
    assert scalar(store, "SELECT count(*) FROM votes") == 2


def test_taking_back_twice_changes_nothing(store: Store, base: BaseModelRef, anna: Annotator, clock: Clock) -> None:
    assignment, vote = vote_once(store, base, anna)
    store.votes.undo(vote.vote_id, anna.id)
    stamp = scalar(store, "SELECT undone_at FROM votes")
    clock.advance(timedelta(minutes=1))
    store.votes.undo(vote.vote_id, anna.id)
    assert scalar(store, "SELECT undone_at FROM votes") == stamp
    second = store.votes.record(assignment.id, anna.id, Choice.TIE, 10)
    store.votes.undo(vote.vote_id, anna.id)
    assert store.votes.count(base) == 1, "the vote that replaced it stands"
    store.votes.undo(second.vote_id, anna.id)
    assert store.votes.count(base) == 0


def test_only_one_s_own_latest_vote_can_be_taken_back(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    _, first = vote_once(store, base, anna)
    _, second = vote_once(store, base, anna)
    _, bens = vote_once(store, base, ben)
    with pytest.raises(ConflictError, match="latest"):
        store.votes.undo(first.vote_id, anna.id)
    with pytest.raises(ForbiddenError):
        store.votes.undo(bens.vote_id, anna.id)
    with pytest.raises(NotFoundError):
        store.votes.undo(999, anna.id)
    store.votes.undo(second.vote_id, anna.id)
    store.votes.undo(first.vote_id, anna.id)  # now it is the latest
    assert store.votes.count(base) == 1


def test_votes_are_counted_whole_and_since(store: Store, base: BaseModelRef, anna: Annotator, clock: Clock) -> None:
    for choice in Choice:
        vote_once(store, base, anna, choice)
    clock.advance(timedelta(minutes=30))
    since = clock()
    vote_once(store, base, anna)
    assert store.votes.count(base) == 6
    assert store.votes.count(base, since=since) == 1
    clock.advance(timedelta(hours=2))
    vote_once(store, base, anna)
    noon = clock.time.replace(hour=12, minute=0)
    assert store.votes.per_hour(base) == [(noon, 6), (noon + timedelta(hours=2), 1)]


def test_training_sees_live_preferences_with_their_files(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    _, liked = vote_once(store, base, anna, Choice.TIE)
    for choice in (Choice.SKIP, Choice.BOTH_BAD):
        vote_once(store, base, anna, choice)
    _, regretted = vote_once(store, base, anna, Choice.LEFT)
    store.votes.undo(regretted.vote_id, anna.id)
    (vote,) = store.votes.training_votes(base)
    pair = store.pairs.get(vote.pair_id)
    assert (vote.vote_id, vote.outcome, vote.annotator_id) == (liked.vote_id, Outcome.TIE, anna.id)
    assert (vote.latents_a, vote.latents_b) == (pair.image_a.latents_sha256, pair.image_b.latents_sha256)
    assert vote.prompt == pair.prompt
    assert store.files.read_embeds(vote.prompt_embeds) == f"embeds {pair.prompt}".encode()


def test_new_preferences_are_those_no_finished_round_has_looked_at(
    store: Store, base: BaseModelRef, anna: Annotator, clock: Clock
) -> None:
    assert store.votes.new_preferences(base) == NewPreferences(0, 0, None)
    begun = clock()
    first, second = (vote_once(store, base, anna)[1].vote_id for _ in range(2))
    vote_once(store, base, anna, Choice.SKIP)
    assert store.votes.new_preferences(base) == NewPreferences(2, second, begun)
    token = store.lease.acquire(base, "trainer", lease_seconds=30)
    assert token is not None
    round_id = start_round(store, base, token, [first, second]).id
    clock.advance(timedelta(minutes=1))
    _, third = vote_once(store, base, anna, Choice.TIE)
    assert store.votes.new_preferences(base).count == 3, "until the round is finished"
    store.rounds.publish(round_id, new_adapter([first, second]), token=token)
    assert store.votes.new_preferences(base) == NewPreferences(1, third.vote_id, clock())
    assert store.votes.count_new_preferences(base, at_most=5) == 1
    store.votes.undo(third.vote_id, anna.id)
    assert store.votes.new_preferences(base) == NewPreferences(0, 0, None)
    for _ in range(3):
        vote_once(store, base, anna)
    assert store.votes.count_new_preferences(base, at_most=2) == 2


@pytest.mark.parametrize("end", ["refused", "failed"])
def test_a_round_without_a_version_has_looked_at_its_votes_too(
    store: Store, base: BaseModelRef, anna: Annotator, end: str
) -> None:
    votes = [vote_once(store, base, anna)[1].vote_id for _ in range(2)]
    token = store.lease.acquire(base, "trainer", lease_seconds=30)
    assert token is not None
    round_id = start_round(store, base, token, votes).id
    if end == "refused":
        store.rounds.refuse(round_id, "no better", token=token)
    else:
        store.rounds.fail(round_id, "out of memory", token=token, final=False)
        assert store.votes.new_preferences(base).count == 2, "it will be tried again"
        store.rounds.fail(round_id, "out of memory", token=token, final=True)
    assert store.votes.new_preferences(base).count == 0


def test_a_judgement_changed_after_training_is_new(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    assignment, vote = vote_once(store, base, anna, Choice.LEFT)
    token = store.lease.acquire(base, "trainer", lease_seconds=30)
    assert token is not None
    round_id = start_round(store, base, token, [vote.vote_id]).id
    store.rounds.publish(round_id, new_adapter([vote.vote_id]), token=token)
    store.votes.undo(vote.vote_id, anna.id)
    store.votes.record(assignment.id, anna.id, Choice.RIGHT, 10)
    assert store.votes.new_preferences(base).count == 1
    assert store.adapters.vote_ids(base, 1) == [vote.vote_id], "what was trained on stays on record"

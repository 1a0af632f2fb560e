"""A person's own votes: seen, taken back within limits, withdrawn for good and yet on record."""

from datetime import timedelta

import pytest

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Annotator, Choice, Question, VoteCounts
from dmpo_app.errors import ConflictError, ExpiredError, ForbiddenError, NotFoundError
from dmpo_app.store import Store
from dmpo_app.store.voting.votes import UNDOABLE
from tests.store.store_data import HOUR, Clock, issue, new_adapter, new_pair, scalar, start_round, vote_once


@pytest.fixture(autouse=True)
def pairs(store: Store, base: BaseModelRef) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(16)])


def test_votes_are_listed_newest_first_a_page_at_a_time(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    given = [vote_once(store, base, anna, choice) for choice in (Choice.LEFT, Choice.TIE, Choice.RIGHT)]
    vote_once(store, base, store.annotators.ensure("somebody else"))
    first = store.own_votes.page(anna.id, limit=2)
    rest = store.own_votes.page(anna.id, before=first[-1].vote_id, limit=2)
    assert [(one.vote_id, one.choice) for one in (*first, *rest)] == [
        (taken.vote_id, choice)
        for (_, taken), choice in zip(reversed(given), (Choice.RIGHT, Choice.TIE, Choice.LEFT), strict=True)
    ]
    assignment = given[-1][0]
    assert (first[0].left_image_id, first[0].right_image_id) == (assignment.left_image_id, assignment.right_image_id)


def test_a_withdrawn_vote_is_stamped_and_no_round_learns_from_it(
    store: Store, base: BaseModelRef, anna: Annotator, clock: Clock
) -> None:
    vote_once(store, base, anna)
    other, vote = vote_once(store, base, anna)
    vote_once(store, base, anna)
    assert store.own_votes.withdraw(vote.vote_id, anna.id)
    assert vote.vote_id not in [one.vote_id for one in store.votes.training_votes(base)]
    assert store.votes.new_preferences(base).count == store.votes.count(base) == 2
    stamp = scalar(store, f"SELECT withdrawn_at FROM votes WHERE id = {vote.vote_id}")
    clock.advance(timedelta(minutes=1))
    assert not store.own_votes.withdraw(vote.vote_id, anna.id), "twice changes nothing"
    assert scalar(store, f"SELECT withdrawn_at FROM votes WHERE id = {vote.vote_id}") == stamp
    assert other.pair_id not in [one.pair_id for one in issue(store, base, anna, 16)], "the pair does not come back"
    with pytest.raises(ExpiredError):
        store.votes.record(other.id, anna.id, Choice.LEFT, 1500)


def test_only_one_s_own_votes_can_be_withdrawn(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    _, vote = vote_once(store, base, anna)
    with pytest.raises(ForbiddenError):
        store.own_votes.withdraw(vote.vote_id, ben.id)
    with pytest.raises(NotFoundError):
        store.own_votes.withdraw(999, ben.id)
    assert store.votes.count(base) == 1


def test_all_votes_of_a_person_are_withdrawn_at_once_and_nobody_else_s(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    for _ in range(4):
        vote_once(store, base, anna)
    _, regretted = vote_once(store, base, anna)
    store.votes.undo(regretted.vote_id, anna.id)
    _, bens = vote_once(store, base, ben)
    assert store.own_votes.withdraw_all(anna.id) == 4
    assert store.own_votes.withdraw_all(anna.id) == 0
    assert [one.vote_id for one in store.votes.training_votes(base)] == [bens.vote_id]
    assert store.own_votes.counts(anna.id) == VoteCounts(0, 1, 4, {Question.OVERALL: 0})
    assert scalar(store, "SELECT count(*) FROM votes") == 6


def test_older_versions_still_say_which_withdrawn_votes_they_had(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    votes = [vote_once(store, base, anna)[1].vote_id for _ in range(2)]
    token = store.lease.acquire(base, "trainer", lease_seconds=30)
    assert token is not None
    store.rounds.publish(start_round(store, base, token, votes).id, new_adapter(votes), token=token)
    store.own_votes.withdraw_all(anna.id)
    assert store.adapters.vote_ids(base, 1) == votes
    assert store.own_votes.versions_trained_on(base, anna.id) == [(1, 2)]
    assert [one.versions for one in store.own_votes.page(anna.id)] == [(1,), (1,)]
    assert store.votes.training_votes(base) == []


def test_the_last_ten_votes_can_be_taken_back_in_reverse_order(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    votes = [vote_once(store, base, anna)[1].vote_id for _ in range(UNDOABLE + 2)]
    for vote_id in reversed(votes[2:]):
        store.votes.undo(vote_id, anna.id)
    with pytest.raises(ConflictError, match="last 10 votes"):
        store.votes.undo(votes[1], anna.id)
    assert store.own_votes.withdraw(votes[1], anna.id), "an older one can be withdrawn"
    assert store.votes.count(base) == 1


def test_judging_one_pair_anew_again_and_again_does_not_use_the_ten_up(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    _, first = vote_once(store, base, anna)
    assignment, vote = vote_once(store, base, anna)
    for _ in range(UNDOABLE + 2):
        store.votes.undo(vote.vote_id, anna.id)
        vote = store.votes.record(assignment.id, anna.id, Choice.RIGHT, 10)
    store.votes.undo(vote.vote_id, anna.id)
    store.votes.undo(first.vote_id, anna.id)
    assert store.votes.count(base) == 0


def test_a_withdrawn_vote_does_not_stand_in_the_way_of_taking_back_the_one_before(
    store: Store, base: BaseModelRef, anna: Annotator, clock: Clock
) -> None:
    assignment, first = vote_once(store, base, anna)
    _, second = vote_once(store, base, anna)
    store.own_votes.withdraw(second.vote_id, anna.id)
    store.votes.undo(first.vote_id, anna.id)
    assert issue(store, base, anna)[0].id == assignment.id
    assert issue(store, base, anna)[0].expires_at == clock() + HOUR

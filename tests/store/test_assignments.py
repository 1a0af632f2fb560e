import random
import threading
from collections import Counter
from datetime import timedelta

import pytest

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Annotator, Assignment, Choice
from dmpo_app.errors import ExpiredError, NotFoundError
from dmpo_app.store import Store
from tests.store.store_data import HOUR, Clock, broken_counts, issue, new_pair, publish_version, scalar, vote_once


def pair_ids(assignments: list[Assignment]) -> list[int]:
    return [assignment.pair_id for assignment in assignments]


def test_an_assignment_shows_the_pair_s_images_on_the_recorded_sides(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(16)])
    assignments = issue(store, base, anna, 16)
    for assignment in assignments:
        pair = store.pairs.get(assignment.pair_id)
        sides = (pair.image_a.id, pair.image_b.id) if assignment.a_on_left else (pair.image_b.id, pair.image_a.id)
        assert (assignment.left_image_id, assignment.right_image_id) == sides
        assert store.assignments.get(assignment.id) == assignment
    assert {assignment.a_on_left for assignment in assignments} == {True, False}


def test_sides_are_even_in_the_long_run(store: Store, base: BaseModelRef) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(10)])
    rng = random.Random(11)
    left = [
        assignment.a_on_left
        for number in range(40)
        for assignment in store.assignments.issue(
            base, store.annotators.ensure(str(number)).id, 10, rng=rng, lifetime=HOUR
        ).result()
    ]
    assert 150 < sum(left) < 250  # of 400: five standard deviations


def test_asking_again_shows_the_same_until_answered(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(9)])
    first = issue(store, base, anna, 3)
    assert issue(store, base, anna, 3) == first
    assert issue(store, base, anna, 2) == first[:2]
    store.votes.record(first[0].id, anna.id, Choice.LEFT, 10)
    topped_up = issue(store, base, anna, 3)
    assert topped_up[:2] == first[1:]
    assert len(topped_up) == 3
    assert scalar(store, "SELECT count(*) FROM assignments") == 4


def test_ids_cannot_be_guessed(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(4)])
    ids = [assignment.id for assignment in issue(store, base, anna, 4, seed=1)]
    assert all(len(identifier) >= 22 for identifier in ids), "128 bits and more"
    assert len(set(ids)) == 4
    with pytest.raises(NotFoundError):
        store.assignments.get("1")


def test_the_least_judged_come_first_then_the_newest_version_then_the_oldest(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    publish_version(store, base)
    old, new = [
        [pair.id for pair in store.pairs.add_many(base, [new_pair(3 * version + n, version=version) for n in range(3)])]
        for version in (0, 1)
    ]
    assert pair_ids(issue(store, base, anna, 2)) == new[:2]
    assert pair_ids(issue(store, base, ben, 6)) == [new[2], *old, *new[:2]]


def test_a_pair_that_all_have_judged_is_shown_to_newcomers_so_that_nobody_waits(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    pair = store.pairs.add(base, new_pair())
    vote_once(store, base, anna)
    assert issue(store, base, anna) == []
    assert pair_ids(issue(store, base, ben)) == [pair.id]


def test_nobody_sees_a_pair_again_that_they_judged_even_when_they_took_it_back(
    store: Store, base: BaseModelRef, anna: Annotator, clock: Clock
) -> None:
    first, second = (store.pairs.add(base, new_pair(number)).id for number in (0, 1))
    assignment, vote = vote_once(store, base, anna)
    assert assignment.pair_id == first
    store.votes.undo(vote.vote_id, anna.id)
    assert pair_ids(issue(store, base, anna, 2)) == [first, second], "the assignment itself is open again"
    clock.advance(HOUR)
    assert pair_ids(issue(store, base, anna, 2)) == [second]


def test_an_unanswered_showing_expires_and_its_pair_comes_back(
    store: Store, base: BaseModelRef, anna: Annotator, clock: Clock
) -> None:
    pair = store.pairs.add(base, new_pair())
    expired = issue(store, base, anna)[0]
    clock.advance(HOUR - timedelta(microseconds=1))
    assert issue(store, base, anna) == [expired]
    clock.advance(timedelta(microseconds=1))
    again = issue(store, base, anna)[0]
    assert again.pair_id == pair.id
    assert again.id != expired.id
    with pytest.raises(ExpiredError):
        store.votes.record(expired.id, anna.id, Choice.LEFT, 10)
    assert store.votes.record(again.id, anna.id, Choice.LEFT, 10).is_new


def test_people_who_leave_do_not_push_pairs_to_the_back(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator, clock: Clock
) -> None:
    first, second = (store.pairs.add(base, new_pair(number)).id for number in (0, 1))
    assert pair_ids(issue(store, base, anna)) == [first]
    clock.advance(HOUR)
    assert pair_ids(issue(store, base, ben, 2)) == [first, second]


def test_fifty_clients_asking_at_once_get_each_their_own_and_no_more(store: Store, base: BaseModelRef) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(100)])
    annotators = [store.annotators.ensure(f"client {number}") for number in range(50)]
    answers: list[tuple[int, list[Assignment]]] = []

    def ask(annotator: Annotator) -> None:
        answers.append((annotator.id, issue(store, base, annotator, 2, seed=annotator.id)))

    threads = [threading.Thread(target=ask, args=(annotator,)) for annotator in annotators for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 150
    held: dict[int, list[Assignment]] = {}
    for annotator_id, assignments in answers:
        assert held.setdefault(annotator_id, assignments) == assignments, "three tabs of one person show the same"
    shown = Counter(assignment.pair_id for assignments in held.values() for assignment in assignments)
    assert set(shown.values()) == {1}, "with pairs enough, no two people hold the same one"
    assert len(shown) == 100
    assert scalar(store, "SELECT count(*) FROM assignments") == 100


def test_counts_stay_right_whatever_people_do(store: Store, base: BaseModelRef, clock: Clock) -> None:
    rng = random.Random(5)
    store.pairs.add_many(base, [new_pair(number) for number in range(12)])
    people = [store.annotators.ensure(f"person {number}") for number in range(4)]
    votes: dict[int, list[int]] = {person.id: [] for person in people}
    judged: dict[int, set[int]] = {person.id: set() for person in people}
    for _ in range(250):
        person = rng.choice(people)
        action = rng.random()
        if action < 0.6:
            assignments = issue(store, base, person, rng.randint(1, 3), seed=rng.randrange(100))
            for assignment in assignments[: rng.randint(0, 2)]:
                taken = store.votes.record(assignment.id, person.id, rng.choice(list(Choice)), 10)
                assert taken.is_new
                votes[person.id].append(taken.vote_id)
                judged[person.id].add(assignment.pair_id)
        elif action < 0.85 and votes[person.id]:
            store.votes.undo(votes[person.id].pop(), person.id)
        else:
            clock.advance(timedelta(minutes=rng.randint(1, 45)))
        assert broken_counts(store) == 0
    live = sum(len(own) for own in votes.values())
    assert store.votes.count(base) == live == scalar(store, "SELECT count(*) FROM votes WHERE undone_at IS NULL")
    for person in people:
        seen = scalar(store, f"SELECT count(DISTINCT pair_id) FROM votes WHERE annotator_id = {person.id}")
        assert seen == len(judged[person.id])

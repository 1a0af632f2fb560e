import threading
from collections import Counter
from collections.abc import Callable
from functools import partial

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Annotator, Assignment, Choice, RecordedVote
from dmpo_app.errors import ConflictError
from dmpo_app.store import Store
from tests.store.store_data import issue, new_pair, scalar


def in_threads(jobs: list[Callable[[], None]]) -> None:
    """Run every job in a thread of its own; whatever one raises fails the test."""
    problems: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - reported below
            problems.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_eight_people_voting_at_once_lose_and_double_nothing(store: Store, base: BaseModelRef) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(50)])
    people = [store.annotators.ensure(f"person {number}") for number in range(8)]
    taken: list[int] = []

    def judge_everything(person: Annotator) -> None:
        while assignments := issue(store, base, person, 4, seed=person.id):
            for assignment in assignments:
                taken.append(store.votes.record(assignment.id, person.id, Choice.LEFT, 10).vote_id)

    in_threads([partial(judge_everything, person) for person in people])
    assert len(taken) == len(set(taken)) == 8 * 50
    assert store.votes.count(base) == 8 * 50
    assert scalar(store, "SELECT count(*) FROM (SELECT 1 FROM votes GROUP BY annotator_id, pair_id) AS shown") == 8 * 50
    assert store.pairs.count_unjudged(base) == 0


def test_one_answer_sent_many_times_at_once_is_one_vote(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(10)])
    assignments = issue(store, base, anna, 10)
    answers: list[tuple[str, RecordedVote]] = []

    def send(assignment: Assignment) -> None:
        answers.append((assignment.id, store.votes.record(assignment.id, anna.id, Choice.TIE, 10)))

    in_threads([partial(send, one) for one in assignments for _ in range(10)])
    created = Counter(identifier for identifier, vote in answers if vote.is_new)
    assert created == {assignment.id: 1 for assignment in assignments}
    assert len({(identifier, vote.vote_id) for identifier, vote in answers}) == 10


def test_contradicting_answers_at_once_leave_exactly_one(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    store.pairs.add(base, new_pair())
    assignment = issue(store, base, anna)[0]
    accepted, refused = [], []

    def send(choice: Choice) -> None:
        try:
            accepted.append((choice, store.votes.record(assignment.id, anna.id, choice, 10)))
        except ConflictError:
            refused.append(choice)

    in_threads([partial(send, choice) for choice in Choice for _ in range(4)])
    assert len({choice for choice, _ in accepted}) == 1
    assert (len(accepted), len(refused)) == (4, 16)
    assert store.votes.count(base) == 1

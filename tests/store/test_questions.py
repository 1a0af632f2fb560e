"""Several questions about a pair: each its own assignment and vote, one after another, nothing lost or doubled."""

import random
from collections import Counter
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError

from dmpo_app.domain.campaign import ReportReason, ReportRules
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Annotator, Assignment, Choice, Question, Strength
from dmpo_app.errors import ConflictError
from dmpo_app.store import Store
from tests.store.store_data import HOUR, Clock, broken_counts, issue, new_pair, scalar, vote_once
from tests.store.store_fixtures import ON_POSTGRESQL
from tests.store.test_many_voters import in_threads

EVERY = (Question.OVERALL, Question.APPEAL, Question.FIT)


def ask(store: Store, base: BaseModelRef, who: Annotator, count: int, *, seed: int = 0) -> list[Assignment]:
    return store.assignments.issue(
        base, who.id, count, rng=random.Random(seed), lifetime=HOUR, questions=EVERY
    ).result()


def test_the_questions_of_a_pair_follow_one_another_with_its_images_on_the_same_sides(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(6)])
    asked = ask(store, base, anna, 16)
    assert len(asked) == 16
    assert [one.question for one in asked[:15]] == list(EVERY) * 5
    by_pair = [asked[start : start + 3] for start in range(0, 15, 3)]
    assert [len({(one.pair_id, one.a_on_left) for one in group}) for group in by_pair] == [1] * 5
    assert len({group[0].a_on_left for group in by_pair}) == 2


def test_whoever_asks_for_one_at_a_time_gets_all_questions_of_a_pair_before_the_next(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(2)])
    answered = []
    while asked := ask(store, base, anna, 1):
        answered.append((asked[0].pair_id, asked[0].question))
        store.votes.record(asked[0].id, anna.id, Choice.LEFT, 10)
    assert answered == [(pair_id, question) for pair_id in (1, 2) for question in EVERY]


def test_a_question_that_was_not_answered_in_time_is_asked_again_alone(
    store: Store, base: BaseModelRef, anna: Annotator, clock: Clock
) -> None:
    pair = store.pairs.add(base, new_pair())
    first, second, _ = ask(store, base, anna, 3)
    for one in (first, second):
        store.votes.record(one.id, anna.id, Choice.TIE, 10)
    clock.advance(HOUR)
    assert [(one.pair_id, one.question) for one in ask(store, base, anna, 3)] == [(pair.id, Question.FIT)]


def test_questions_added_to_a_campaign_are_asked_about_pairs_that_were_judged_before(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    store.pairs.add(base, new_pair())
    vote_once(store, base, anna)
    assert issue(store, base, anna) == []
    assert [one.question for one in ask(store, base, anna, 3)] == [Question.APPEAL, Question.FIT]


def test_the_database_shows_nobody_the_same_question_of_a_pair_twice(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    store.pairs.add(base, new_pair())
    ask(store, base, anna, 3)
    rest = "base_id, annotator_id, pair_id, question, a_on_left, state, created_at, opened_at, expires_at"
    twice = text(
        f"INSERT INTO assignments (public_id, {rest}) SELECT 'again', {rest} FROM assignments WHERE question = 'fit'"
    )
    with pytest.raises(IntegrityError, match=r"UNIQUE|unique constraint"):
        store.database.write(lambda connection: connection.execute(twice))


def test_people_who_answer_all_questions_at_once_lose_and_double_nothing(store: Store, base: BaseModelRef) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(12)])
    people = [store.annotators.ensure(f"person {number}") for number in range(6)]
    taken: list[int] = []

    def judge_everything(person: Annotator) -> None:
        while asked := ask(store, base, person, 4, seed=person.id):
            for one in asked:
                taken.append(store.votes.record(one.id, person.id, Choice.RIGHT, 10).vote_id)

    in_threads([partial(judge_everything, person) for person in people for _ in range(2)])  # two tabs each
    assert len(set(taken)) == 6 * 12 * 3
    assert store.votes.count(base) == 6 * 12 * 3
    combinations = "SELECT count(*) FROM (SELECT DISTINCT annotator_id, pair_id, question FROM votes) AS shown"
    assert scalar(store, combinations) == 6 * 12 * 3


def test_counts_stay_right_whatever_people_and_administrators_do(
    store: Store, base: BaseModelRef, clock: Clock
) -> None:
    rng = random.Random(7)
    store.pairs.add_many(base, [new_pair(number) for number in range(10)])
    people = [store.annotators.ensure(f"person {number}") for number in range(3)]
    open_reports: list[int] = []
    done: Counter[str] = Counter()
    for _ in range(160):
        person, action = rng.choice(people), rng.random()
        own = [vote.vote_id for vote in store.own_votes.page(person.id) if not (vote.undone_at or vote.withdrawn_at)]
        if action < 0.55:
            for one in ask(store, base, person, rng.randint(1, 4), seed=rng.randrange(99))[: rng.randint(0, 3)]:
                done["votes"] += store.votes.record(one.id, person.id, rng.choice(list(Choice)), 10).is_new
        elif action < 0.65 and own:
            store.votes.undo(own[0], person.id)
        elif action < 0.75 and own:
            done["withdrawn"] += store.own_votes.withdraw(rng.choice(own), person.id)
        elif action < 0.78:
            done["withdrawn"] += store.own_votes.withdraw_all(person.id)
        elif action < 0.86:
            shown = ask(store, base, person, 1)
            if shown:
                report = store.reports.add(shown[0].id, person.id, ReportReason.UNSAFE, None, rules=ReportRules(1))
                open_reports.append(report.id)
        elif action < 0.95 and open_reports:
            store.reports.clear(base, open_reports.pop(), by="admin", rules=ReportRules(1))
        else:
            clock.advance(timedelta(minutes=rng.randint(1, 45)))
        assert broken_counts(store) == 0
    assert done["votes"] > 40
    assert done["withdrawn"] > 5


def test_rounds_learn_from_the_votes_on_one_question(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(2)])
    taken: dict[Question, list[int]] = {question: [] for question in EVERY}
    for one in ask(store, base, anna, 6):
        taken[one.question].append(store.votes.record(one.id, anna.id, Choice.LEFT, 10).vote_id)
    for question in EVERY:
        votes = store.votes.training_votes(base, question=question)
        assert [vote.vote_id for vote in votes] == taken[question]
        assert store.votes.new_preferences(base, question=question).count == 2
        assert store.votes.count_new_preferences(base, at_most=9, question=question) == 2


def test_a_strength_is_what_the_vote_counts_and_a_comment_is_kept(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(3)])
    strengths = (None, Strength.SLIGHTLY, Strength.CLEARLY)
    for one, strength in zip(issue(store, base, anna, 3), strengths, strict=True):
        store.votes.record(one.id, anna.id, Choice.LEFT, 10, strength, "<b>sharper</b>" if strength else None)
    assert [vote.strength for vote in store.votes.training_votes(base)] == [1.0, 0.5, 1.0]
    found = [(vote.strength, vote.comment) for vote in store.own_votes.page(anna.id)]
    assert found == [(Strength.CLEARLY, "<b>sharper</b>"), (Strength.SLIGHTLY, "<b>sharper</b>"), (None, None)]


def test_another_strength_or_comment_is_another_answer(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    store.pairs.add(base, new_pair())
    one = issue(store, base, anna)[0]
    first = store.votes.record(one.id, anna.id, Choice.LEFT, 10, Strength.SLIGHTLY, "soft")
    again = store.votes.record(one.id, anna.id, Choice.LEFT, 10, Strength.SLIGHTLY, "soft")
    assert (again.vote_id, again.is_new) == (first.vote_id, False)
    for strength, comment in ((Strength.CLEARLY, "soft"), (None, "soft"), (Strength.SLIGHTLY, None)):
        with pytest.raises(ConflictError):
            store.votes.record(one.id, anna.id, Choice.LEFT, 10, strength, comment)


def test_a_vote_and_a_new_showing_take_no_more_statements_than_before_there_were_campaigns(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(2)])
    run: list[str] = []

    def note(_connection: Connection, _cursor: object, sql: str, *_: object) -> None:
        run.append(sql)

    engine = store.database.write(lambda connection: connection.engine)
    event.listen(engine, "before_cursor_execute", note)
    one = issue(store, base, anna)[0]
    shown, run[:] = list(run), []
    store.votes.record(one.id, anna.id, Choice.LEFT, 10)
    event.remove(engine, "before_cursor_execute", note)
    assert [sql.split()[0] for sql in run if "SAVEPOINT" not in sql] == [
        "SELECT" if ON_POSTGRESQL else "BEGIN",  # there it is the lock that begins the transaction
        "SELECT",
        "INSERT",
        "UPDATE",
        "UPDATE",
    ]
    assert len([sql for sql in shown if "SAVEPOINT" not in sql]) == 8

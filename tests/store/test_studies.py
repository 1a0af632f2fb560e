"""Human studies: planned, judged by so many people, closed, summed up."""

import random
from datetime import timedelta

import pytest

from dmpo_app.domain.judging import NewStudy
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Annotator, Assignment, AssignmentRules, Choice, Question
from dmpo_app.errors import BadInputError, ConflictError, NotFoundError
from dmpo_app.store import Store
from tests.store.store_data import publish_version
from tests.store.test_duels import HELD_OUT, new_duel

BOTH = (Question.OVERALL, Question.FIT)


def plan(**changes: object) -> NewStudy:
    values: dict[str, object] = {"name": "first", "version_a": 1, "version_b": 0, "questions": BOTH, "num_raters": 2}
    return NewStudy(**(values | {"num_pairs": 2} | changes))  # type: ignore[arg-type]


def take(store: Store, base: BaseModelRef, annotator: Annotator, count: int = 8) -> list[Assignment]:
    """The assignments that the studio issues to somebody who judges versions."""
    study = store.studies.find_for(base, annotator.id)
    if study is None:
        return []
    rules = AssignmentRules(duels_only=True, assignments_per_pair=study.plan.num_raters, study_id=study.id)
    return store.assignments.issue(
        base,
        annotator.id,
        count,
        rng=random.Random(0),
        lifetime=timedelta(hours=1),
        questions=study.plan.questions,
        rules=rules,
    ).result()


@pytest.fixture
def version(store: Store, base: BaseModelRef) -> int:
    store.prompts.ensure([HELD_OUT], held_out=True)
    return publish_version(store, base)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"name": ""}, "1 to 80 printable characters"),
        ({"name": "a\nb"}, "1 to 80 printable characters"),
        ({"version_b": 1}, "two versions; both are 1"),
        ({"questions": ()}, "one question at least"),
        ({"questions": (Question.FIT, Question.FIT)}, "none twice"),
        ({"num_raters": 0}, "0 raters a pair are not between 1 and 100"),
        ({"num_pairs": 10_001}, "10001 pairs are not between 1 and 10000"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_words(
    store: Store, base: BaseModelRef, version: int, changes: dict[str, object], part: str
) -> None:
    assert version == 1
    with pytest.raises(BadInputError, match=part):
        store.studies.create(base, plan(**changes), by="cli")


def test_a_study_is_of_versions_there_are_and_has_a_name_of_its_own(
    store: Store, base: BaseModelRef, version: int
) -> None:
    with pytest.raises(NotFoundError, match="no version 7"):
        store.studies.create(base, plan(version_a=7), by="cli")
    store.studies.create(base, plan(), by="cli")
    with pytest.raises(ConflictError, match="'first' already"):
        store.studies.create(base, plan(version_a=version), by="cli")
    newest = store.audit.list()[0]
    assert (newest.act, newest.subject) == ("study_created", "study first")


def test_duels_go_to_the_study_that_lacks_them_and_then_to_none(store: Store, base: BaseModelRef, version: int) -> None:
    study = store.studies.create(base, plan(), by="cli")
    assert [(one.version_a, one.version_b, missing) for one, missing in store.studies.list_needs(base)] == [(1, 0, 2)]
    duels = [store.duels.add(base, new_duel(number, versions=(version, 0))) for number in range(3)]
    assert [duel.study_id for duel in duels] == [study.id, study.id, None]
    assert store.studies.list_needs(base) == []
    assert store.duels.count_ready(base, version, 0) == 1
    assert store.studies.get(base, study.id).num_made == 2


def test_each_pair_is_judged_by_so_many_people_on_every_question(
    store: Store, base: BaseModelRef, version: int
) -> None:
    study = store.studies.create(base, plan(), by="cli")
    for number in range(2):
        store.duels.add(base, new_duel(number, versions=(version, 0)))
    people = [store.annotators.ensure(name) for name in ("anna", "ben", "carla")]
    for annotator in people[:2]:
        asked = take(store, base, annotator)
        assert [one.question for one in asked] == [*BOTH, *BOTH]
        assert asked[0].pair_id == asked[1].pair_id
        for one in asked:
            is_won = one.question is Question.OVERALL
            store.votes.record(one.id, annotator.id, Choice.LEFT if is_won == one.a_on_left else Choice.RIGHT, 900)
        assert take(store, base, annotator) == []
    assert take(store, base, people[2]) == [], "two people a pair are enough"
    answers = store.studies.answers(base, study.id)
    assert {(one.judgement.question, one.judgement.score) for one in answers} == {
        (Question.OVERALL, 1.0),
        (Question.FIT, 0.0),
    }
    assert store.studies.get(base, study.id).num_answers == len(answers) == 8
    store.strikes.strike(people[0].id, by="cli")
    assert len(store.studies.answers(base, study.id)) == 4


def test_a_closed_study_is_offered_to_nobody(store: Store, base: BaseModelRef, version: int) -> None:
    study = store.studies.create(base, plan(), by="cli")
    store.duels.add(base, new_duel(1, versions=(version, 0)))
    anna = store.annotators.ensure("anna")
    assert store.studies.find_for(base, anna.id) is not None
    for _ in range(2):
        closed = store.studies.close(base, study.id, by="cli")
    assert closed.closed_at is not None
    assert store.studies.find_for(base, anna.id) is None
    assert store.studies.list_needs(base) == []
    assert store.studies.list(base, only_open=True) == []

"""The offering of pairs as a campaign may want it: an order, a limit, gold pairs, repeats."""

import random
from collections import Counter
from functools import partial

import pytest

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Annotator, Assignment, AssignmentRules, CandidateFeature, Choice, Outcome, Question
from dmpo_app.errors import BadInputError, NotFoundError
from dmpo_app.labeling.strategies import STRATEGIES
from dmpo_app.settings import LabelingSettings
from dmpo_app.store import Store
from tests.store.store_data import HOUR, new_pair, scalar
from tests.store.test_many_voters import in_threads

ALL_REPEATS = AssignmentRules(repeat_rate=1.0, repeat_after=2)
ALL_GOLD = AssignmentRules(gold_rate=1.0)


def offered(
    store: Store,
    base: BaseModelRef,
    annotator: Annotator,
    offering: AssignmentRules,
    count: int = 1,
    *,
    questions: tuple[Question, ...] = (Question.OVERALL,),
) -> list[Assignment]:
    rng = random.Random(5)
    return store.assignments.issue(
        base, annotator.id, count, rng=rng, lifetime=HOUR, questions=questions, rules=offering
    ).result()


def vote(store: Store, shown: Assignment, choice: Choice = Choice.LEFT) -> int:
    return store.votes.record(shown.id, shown.annotator_id, choice, 10).vote_id


def by(name: str, **settings: int) -> AssignmentRules:
    return AssignmentRules(strategy=STRATEGIES[name](LabelingSettings.model_validate({"strategy": name, **settings})))


@pytest.fixture
def pairs(store: Store, base: BaseModelRef) -> list[int]:
    return [pair.id for pair in store.pairs.add_many(base, [new_pair(number) for number in range(8)])]


def test_two_hundred_clients_at_once_never_get_a_pair_more_often_than_wanted(
    store: Store, base: BaseModelRef, pairs: list[int]
) -> None:
    people = [store.annotators.ensure(f"person {number}") for number in range(200)]
    shown: list[int] = []

    def ask(person: Annotator) -> None:
        offering = AssignmentRules(strategy=STRATEGIES["random"](LabelingSettings()), assignments_per_pair=3)
        shown.extend(one.pair_id for one in offered(store, base, person, offering, 2))

    in_threads([partial(ask, person) for person in people])
    assert Counter(shown) == dict.fromkeys(pairs, 3)


def test_a_limit_holds_for_each_question(store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator) -> None:
    store.pairs.add(base, new_pair())
    both = (Question.OVERALL, Question.FIT)
    once = AssignmentRules(assignments_per_pair=1)
    assert len(offered(store, base, anna, once, 4, questions=both)) == 2
    assert offered(store, base, ben, once, 4, questions=both) == []


def test_a_repeat_comes_after_so_many_votes_with_the_sides_swapped_and_only_once(
    store: Store, base: BaseModelRef, anna: Annotator, pairs: list[int]
) -> None:
    first = offered(store, base, anna, AssignmentRules(), 3)
    for shown in first:
        vote(store, shown)
    trained = store.votes.training_votes(base)
    (repeat,) = offered(store, base, anna, ALL_REPEATS)
    assert (repeat.pair_id, repeat.a_on_left) == (first[0].pair_id, not first[0].a_on_left)
    undone = vote(store, repeat)
    store.votes.undo(undone, anna.id)
    assert offered(store, base, anna, ALL_REPEATS) == [store.assignments.get(repeat.id)]
    vote(store, repeat)
    assert store.votes.training_votes(base) == trained
    assert store.votes.new_preferences(base).count == len(trained) == 3
    assert [one.pair_id for one in store.vote_records.all(base)] == [*(one.pair_id for one in first), repeat.pair_id]
    for earlier in first[1:]:
        (following,) = offered(store, base, anna, ALL_REPEATS)
        assert following.pair_id == earlier.pair_id
        vote(store, following)
    assert offered(store, base, anna, ALL_REPEATS)[0].pair_id == pairs[3], "repeats are not repeated"


def test_a_repeat_asks_what_was_asked(store: Store, base: BaseModelRef, anna: Annotator, pairs: list[int]) -> None:
    both = (Question.OVERALL, Question.FIT)
    for shown in offered(store, base, anna, AssignmentRules(), 4, questions=both):
        vote(store, shown)
    repeats = offered(store, base, anna, ALL_REPEATS, 2, questions=both)
    assert [(one.pair_id, one.question) for one in repeats] == [(pairs[0], question) for question in both]


def test_votes_on_gold_pairs_are_kept_and_not_trained_on(
    store: Store, base: BaseModelRef, anna: Annotator, pairs: list[int]
) -> None:
    store.gold.set(base, pairs[5], Outcome.B, by="administrator")
    assert store.pairs.count_unjudged(base) == 7
    assert pairs[5] not in [one.pair_id for one in offered(store, base, anna, AssignmentRules(), 8)]
    ben = store.annotators.ensure("ben")
    (gold,) = offered(store, base, ben, ALL_GOLD)
    assert gold.pair_id == pairs[5]
    vote(store, gold)
    assert store.votes.training_votes(base) == []
    assert [one.pair_id for one in store.vote_records.all(base)] == [pairs[5]]
    assert offered(store, base, ben, ALL_GOLD)[0].pair_id == pairs[0], "a gold pair is shown once, then others are"
    store.gold.set(base, pairs[5], None, by="administrator")
    assert store.gold.right_outcomes(base) == {}
    assert [act.subject for act in store.audit.list()] == [f"pair {pairs[5]}", f"pair {pairs[5]}: b"]


def test_only_a_preference_on_a_pair_that_exists_can_be_gold(store: Store, base: BaseModelRef) -> None:
    with pytest.raises(NotFoundError, match="no pair 77"):
        store.gold.set(base, 77, Outcome.A, by="cli")
    with pytest.raises(BadInputError, match="a, b or tie, not skip"):
        store.gold.set(base, 1, Outcome.SKIP, by="cli")


def test_gold_pairs_come_at_their_rate_and_in_no_order_that_gives_them_away(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    stored = store.pairs.add_many(base, [new_pair(number) for number in range(200)])
    gold = {pair.id for pair in stored[:100]}
    for pair_id in gold:
        store.gold.set(base, pair_id, Outcome.A, by="cli")
    rng, offering = random.Random(3), AssignmentRules(gold_rate=0.25)
    places = []
    for _ in range(12):
        shown = store.assignments.issue(base, anna.id, 8, rng=rng, lifetime=HOUR, rules=offering).result()
        places += [place for place, one in enumerate(shown) if one.pair_id in gold]
        for one in shown:
            vote(store, one)
    assert 12 <= len(places) <= 36, "a quarter of 96"
    assert len(set(places)) == 8


def test_an_overlap_is_finished_before_fresh_pairs_are_begun(
    store: Store, base: BaseModelRef, pairs: list[int]
) -> None:
    people = [store.annotators.ensure(str(number)) for number in range(4)]
    offering = by("overlap", overlap_every=4, overlap_people=3)
    shared = [pair_id for pair_id in pairs if pair_id % 4 == 0]
    begun = offered(store, base, people[0], AssignmentRules(), 8)
    assert {one.pair_id for one in begun} == set(pairs)
    fresh = [pair.id for pair in store.pairs.add_many(base, [new_pair(number) for number in range(20, 24)])]
    fresh = [pair_id for pair_id in fresh if pair_id % 4 != 0]
    assert [one.pair_id for one in offered(store, base, people[1], offering, 2)] == shared
    assert [one.pair_id for one in offered(store, base, people[2], offering, 2)] == shared
    assert offered(store, base, people[3], offering, 2)[0].pair_id == fresh[0]


def test_facts_are_those_of_the_pairs(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator, pairs: list[int]
) -> None:
    first, second = (store.pairs.get(pair_id) for pair_id in pairs[:2])
    store.scores.put("sharp", {first.image_a.id: 3.0, first.image_b.id: 1.0})
    store.scores.put(
        "loud", {first.image_a.id: 1.0, first.image_b.id: 5.0, second.image_a.id: 4.0, second.image_b.id: 4.0}
    )
    store.pair_margins.put(3, {pairs[0]: -0.5})
    for shown in offered(store, base, ben, AssignmentRules(), 8):
        vote(store, shown, Choice.LEFT if shown.a_on_left else Choice.RIGHT)
    seen = []

    class Noting:
        required_features = frozenset(CandidateFeature)
        overlap = None

        def order(self, candidates, rng):  # type: ignore[no-untyped-def]
            seen.extend(candidates)
            return list(candidates)

    offered(store, base, anna, AssignmentRules(strategy=Noting()), 1)
    known = {one.pair_id: one for one in seen}
    assert set(known) == set(pairs)
    one = known[pairs[0]]
    assert (one.margin, one.wins, one.prompt_votes, one.num_taken) == (-0.5, (1, 0, 0), 2, 1)
    assert one.scores == pytest.approx((-(2**0.5), 1.0))
    assert known[pairs[1]].scores == (0.0,)
    assert known[pairs[2]].margin is None


def test_margins_are_missing_until_they_are_of_this_version(store: Store, base: BaseModelRef, pairs: list[int]) -> None:
    assert store.pair_margins.list_missing(base, 1, limit=3) == pairs[:-4:-1]
    store.pair_margins.put(1, dict.fromkeys(pairs, 0.25))
    assert store.pair_margins.list_missing(base, 1, limit=3) == []
    store.pair_margins.put(2, {pairs[0]: 0.5})
    assert store.pair_margins.list_missing(base, 2, limit=99) == pairs[:0:-1]
    assert scalar(store, "SELECT count(*) FROM pair_margins") == len(pairs)
    with pytest.raises(BadInputError, match="not finite"):
        store.pair_margins.put(2, {pairs[0]: float("nan")})

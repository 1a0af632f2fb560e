"""Duels between versions: stored, offered to people blind, judged, and never learnt from."""

import random
from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import insert, update

from dmpo_app.domain.judging import Comparison, Duel, Evidence, Judgement, NewDuel, Verdict, VerdictAction
from dmpo_app.domain.lineage import BaseModelRef, ImageKind, PairSource
from dmpo_app.domain.vote import Annotator, Assignment, AssignmentRules, Choice, Outcome, Question
from dmpo_app.errors import BadInputError, ConflictError, NotFoundError, StudioError
from dmpo_app.store import Store, schema
from tests.store.store_data import (
    HOUR,
    Clock,
    new_adapter,
    new_image,
    new_pair,
    publish_version,
    start_round,
    vote_once,
)

HELD_OUT = "a held-out fox"
DUELS_ALONE = AssignmentRules(duels_only=True)


def new_duel(seed: int = 1, *, prompt: str = HELD_OUT, versions: tuple[int, int] = (1, 0)) -> NewDuel:
    image_a, image_b = (
        new_image(prompt, seed, version=version, png=f"png {seed} {version}".encode(), latents=None)
        for version in versions
    )
    return NewDuel(prompt, image_a, image_b)


def offered(
    store: Store,
    base: BaseModelRef,
    annotator: Annotator,
    rules: AssignmentRules = DUELS_ALONE,
    count: int = 1,
    *,
    questions: tuple[Question, ...] = (Question.OVERALL,),
) -> list[Assignment]:
    rng = random.Random(5)
    issued = store.assignments.issue(
        base, annotator.id, count, rng=rng, lifetime=HOUR, questions=questions, rules=rules
    )
    return issued.result()


def choose_version(store: Store, shown: Assignment, version: int) -> int:
    """Vote for the image of a version."""
    left = store.images.get(shown.left_image_id).provenance.adapter_version
    choice = Choice.LEFT if left == version else Choice.RIGHT
    return store.votes.record(shown.id, shown.annotator_id, choice, 10).vote_id


@pytest.fixture
def live(store: Store, base: BaseModelRef) -> int:
    """Version 1, live, of no votes; and a held-out prompt."""
    store.prompts.ensure([HELD_OUT], held_out=True)
    return publish_version(store, base)


def test_a_duel_is_a_pair_of_a_held_out_prompt_that_no_pair_may_have(
    store: Store, base: BaseModelRef, live: int
) -> None:
    duel = store.duels.add(base, new_duel())
    stored = store.pairs.get(duel.pair_id)
    assert (stored.source, stored.prompt, duel.version_a, duel.version_b) == (PairSource.DUEL, HELD_OUT, live, 0)
    assert {duel.image_a.id, duel.image_b.id}.isdisjoint({store.images.add(base, new_image(), ImageKind.RENDER).id})
    again = store.duels.add(base, new_duel())
    assert again.image_a.sha256 == duel.image_a.sha256
    assert {again.image_a.id, again.image_b.id}.isdisjoint({duel.image_a.id, duel.image_b.id})
    with pytest.raises(ConflictError, match="held out"):
        store.pairs.add(base, new_pair(prompt=HELD_OUT))
    assert [one.pair_id for one in store.duels.list(base)] == [again.pair_id, duel.pair_id]
    assert store.duels.list(base, versions=(0, live), before=again.pair_id) == [duel]
    assert store.duels.list(base, versions=(0, 7)) == []


@pytest.mark.parametrize(
    ("duel", "error"),
    [
        (new_duel(prompt="nobody knows it"), NotFoundError),
        (new_duel(versions=(1, 1)), BadInputError),
        (NewDuel("a fox", new_duel().image_a, new_duel().image_b), BadInputError),
        (NewDuel(HELD_OUT, new_duel(1).image_a, new_duel(2).image_b), BadInputError),
    ],
)
def test_what_is_no_duel_is_refused(
    store: Store, base: BaseModelRef, live: int, duel: NewDuel, error: type[StudioError]
) -> None:
    assert live == 1
    with pytest.raises(error):
        store.duels.add(base, duel)
    assert store.duels.list(base) == []


def test_no_duel_has_a_prompt_that_either_version_was_trained_on(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    store.pairs.add_many(base, [new_pair(0, prompt="seen"), new_pair(1, prompt="unseen")])
    shown, recorded = vote_once(store, base, anna)
    assert shown.prompt == "seen"
    publish_trained_on(store, base, recorded.vote_id)
    with pytest.raises(ConflictError, match="trained on the prompt 'seen'"):
        store.duels.add(base, new_duel(prompt="seen"))
    store.prompts.ensure(["Seen", HELD_OUT], held_out=False)
    with pytest.raises(ConflictError, match="trained on the prompt 'Seen'"):
        store.duels.add(base, new_duel(prompt="Seen"))
    store.duels.add(base, new_duel(prompt="unseen"))
    assert store.duels.prompts(base, 0, 1) == {"unseen": 1, HELD_OUT: 0}


def publish_trained_on(store: Store, base: BaseModelRef, *votes: int) -> int:
    token = store.lease.acquire(base, "publisher", lease_seconds=30)
    assert token is not None
    round_id = start_round(store, base, token, list(votes)).id
    return store.rounds.publish(round_id, new_adapter(list(votes)), token=token).version


def test_the_live_version_is_compared_with_the_one_before_and_with_the_base(store: Store, base: BaseModelRef) -> None:
    assert store.duels.comparisons(base) == []
    publish_version(store, base)
    assert store.duels.comparisons(base) == [Comparison(1, 0)]
    publish_version(store, base)
    publish_version(store, base)
    assert store.duels.comparisons(base) == [Comparison(3, 2), Comparison(3, 0)]
    store.adapters.set_live(base, 2, "administrator")
    assert store.duels.comparisons(base) == [Comparison(2, 1), Comparison(2, 0)], "not with the one it came back for"
    store.adapters.set_live(base, 0, "administrator")
    assert store.duels.comparisons(base) == []


def test_a_version_that_is_held_back_is_compared_with_the_live_one_until_there_is_a_verdict(
    store: Store, base: BaseModelRef, live: int
) -> None:
    hold_version(store, base, 2)
    assert store.duels.comparisons(base) == [Comparison(2, live)]
    record_verdict(store, base, 2, VerdictAction.NONE)
    assert store.duels.comparisons(base) == [Comparison(2, live)]
    record_verdict(store, base, 2, VerdictAction.REJECTED)
    assert store.duels.comparisons(base) == [Comparison(live, 0)]
    hold_version(store, base, 3)
    assert store.duels.comparisons(base) == [Comparison(3, live)]
    store.adapters.set_live(base, 3, "administrator")
    store.adapters.set_live(base, live, "administrator")
    assert store.duels.comparisons(base) == [Comparison(live, 0)], "one that was live is held back no more"


def hold_version(store: Store, base: BaseModelRef, version: int) -> None:
    """A published version that is held back: as a round in the mode hold leaves it."""
    token = store.lease.acquire(base, "publisher", lease_seconds=30)
    assert token is not None
    round_id = start_round(store, base, token, []).id
    store.rounds.refuse(round_id, "so that its number is free", token=token)
    held = insert(schema.AdapterRow).values(
        base_id=base.id, version=version, parent=0, folder="held", sha256="a" * 64, round_id=round_id, is_held=True,
        created_at=Clock()(), metrics={}, config={},
    )  # fmt: skip
    store.database.write(lambda connection: connection.execute(held))


def record_verdict(store: Store, base: BaseModelRef, version: int, action: VerdictAction) -> None:
    values = {"base_id": base.id, "version": version, "other_version": 1, "verdict": Verdict.WORSE, "numbers": {}}
    row = insert(schema.VerdictRow).values(**values, evidence=Evidence.DUELS, action=action, created_at=Clock()())
    store.database.write(lambda connection: connection.execute(row))


def test_duels_alone_are_assigned_the_fewest_judgements_first_and_spread_over_people(
    store: Store, base: BaseModelRef, live: int, anna: Annotator, ben: Annotator
) -> None:
    assert live == 1
    store.pairs.add(base, new_pair())
    assert offered(store, base, anna) == []
    duels = [store.duels.add(base, new_duel(seed)).pair_id for seed in range(4)]
    first, second = offered(store, base, anna, count=2)
    assert [first.pair_id, second.pair_id] == duels[:2]
    choose_version(store, first, 1)
    assert [one.pair_id for one in offered(store, base, anna, count=3)] == duels[1:]
    assert [
        one.pair_id for one in offered(store, base, ben, AssignmentRules(duels_only=True, assignments_per_pair=1))
    ] == []
    assert [one.pair_id for one in offered(store, base, ben, count=4)] == duels
    assert store.duels.count_ready(base, 0, 1) == 0


def test_duels_of_other_versions_and_of_studies_are_not_offered(
    store: Store, base: BaseModelRef, live: int, anna: Annotator
) -> None:
    publish_version(store, base)
    store.duels.add(base, new_duel(1, versions=(live, 0)))
    study = insert(schema.StudyRow).values(
        id=1, base_id=base.id, name="study", version_a=2, version_b=1, questions=["overall"], num_raters=3,
        num_pairs=1, created_by="administrator", created_at=Clock()(),
    )  # fmt: skip
    store.database.write(lambda connection: connection.execute(study))
    images = new_duel(2, versions=(2, 1))
    of_study = store.duels.add(base, NewDuel(images.prompt, images.image_a, images.image_b, study_id=1))
    assert of_study.study_id == 1
    assert offered(store, base, anna) == []
    assert store.duels.count_ready(base, 2, 1) == 0
    duel = store.duels.add(base, new_duel(3, versions=(1, 2)))
    assert [one.pair_id for one in offered(store, base, anna, count=3)] == [duel.pair_id]


def test_duels_are_mixed_in_at_their_rate_with_random_sides(
    store: Store, base: BaseModelRef, live: int, anna: Annotator
) -> None:
    assert live == 1
    store.pairs.add_many(base, [new_pair(number) for number in range(100)])
    duels = {store.duels.add(base, new_duel(seed)).pair_id for seed in range(100)}
    half = AssignmentRules(duel_rate=0.5)
    rng, places, sides = random.Random(3), Counter[bool](), Counter[bool]()
    for _ in range(10):
        issued = store.assignments.issue(base, anna.id, 10, rng=rng, lifetime=HOUR, rules=half).result()
        for shown in issued:
            places[shown.pair_id in duels] += 1
            if shown.pair_id in duels:
                sides[shown.a_on_left] += 1
            choose_version(store, shown, 0)
    assert 40 <= places[True] <= 60
    assert min(sides.values()) >= 0.3 * places[True]
    assert not {one.pair_id for one in offered(store, base, anna, AssignmentRules(), 16)} & duels
    trios = AssignmentRules(duel_rate=1.0, num_images=3)
    fit_alone = offered(store, base, anna, AssignmentRules(duel_rate=1.0), 4, questions=(Question.FIT,))
    assert not {one.pair_id for one in fit_alone} & duels
    assert offered(store, base, store.annotators.ensure("ada"), trios) == []


def test_a_duel_among_pairs_of_several_questions_is_asked_all_of_them(
    store: Store, base: BaseModelRef, live: int, anna: Annotator
) -> None:
    assert live == 1
    duel = store.duels.add(base, new_duel())
    both = (Question.OVERALL, Question.FIT)
    shown = offered(store, base, anna, AssignmentRules(duel_rate=1.0), 4, questions=both)
    assert [(one.pair_id, one.question) for one in shown] == [(duel.pair_id, question) for question in both]
    for one in shown:
        choose_version(store, one, 1)
    assert [one.score for one in store.duels.judgements(base, 1, 0)] == [1.0]
    assert [one.question for one in store.duels.judgements(base, 1, 0, question=Question.FIT)] == [Question.FIT]


def test_a_duel_expires_is_taken_back_and_withdrawn_as_any_pair(
    store: Store, base: BaseModelRef, live: int, anna: Annotator, clock: Clock
) -> None:
    store.duels.add(base, new_duel())
    offered(store, base, anna)
    assert store.duels.count_ready(base, live, 0) == 0
    clock.advance(HOUR + timedelta(seconds=1))
    assert store.duels.count_ready(base, live, 0) == 1
    (shown,) = offered(store, base, anna)
    vote = choose_version(store, shown, 1)
    assert [one.score for one in store.duels.judgements(base, 1, 0)] == [1.0]
    store.votes.undo(vote, anna.id)
    assert store.duels.judgements(base, 1, 0) == []
    assert offered(store, base, anna) == [store.assignments.get(shown.id)]
    vote = choose_version(store, shown, 0)
    assert store.own_votes.page(anna.id)[0].vote_id == vote
    assert store.own_votes.withdraw(vote, anna.id)
    assert store.duels.judgements(base, 1, 0) == []


def test_judgements_are_about_the_version_asked_for_whichever_way_a_duel_is_stored(
    store: Store, base: BaseModelRef, live: int, anna: Annotator, ben: Annotator
) -> None:
    assert live == 1
    for seed, versions in enumerate([(1, 0), (0, 1), (1, 0), (1, 0), (1, 0)]):
        store.duels.add(base, new_duel(seed, versions=versions))
    shown = offered(store, base, anna, count=5)
    choose_version(store, shown[0], 1)
    choose_version(store, shown[1], 1)
    for one, choice in zip(shown[2:], (Choice.TIE, Choice.SKIP, Choice.BOTH_BAD), strict=True):
        store.votes.record(one.id, anna.id, choice, 10)
    choose_version(store, offered(store, base, ben)[0], 0)
    expected = [(anna.id, 1.0), (anna.id, 1.0), (anna.id, 0.5), (ben.id, 0.0)]
    judged = store.duels.judgements(base, 1, 0)
    assert judged == [Judgement(who, HELD_OUT, 1, 0, score) for who, score in expected]
    assert store.duels.all_judgements(base) == judged
    assert store.duels.judgements(base, 0, 1) == [Judgement(who, HELD_OUT, 0, 1, 1 - score) for who, score in expected]
    store.strikes.strike(ben.id, by="administrator")
    assert len(store.duels.judgements(base, 1, 0)) == 3


def test_judgements_of_duels_that_reports_have_retired_do_not_count(
    store: Store, base: BaseModelRef, live: int, anna: Annotator
) -> None:
    assert live == 1
    duel = store.duels.add(base, new_duel())
    choose_version(store, offered(store, base, anna)[0], 1)
    retired = update(schema.PairRow).where(schema.PairRow.id == duel.pair_id).values(retired_at=Clock()())
    store.database.write(lambda connection: connection.execute(retired))
    assert store.duels.judgements(base, 1, 0) == []
    assert store.duels.all_judgements(base) == []


def test_nothing_is_learnt_from_duels_and_they_are_in_no_count_of_pairs_to_judge(
    store: Store, base: BaseModelRef, live: int, anna: Annotator
) -> None:
    assert live == 1
    store.prompts.ensure(["unseen"], held_out=False)
    duels = [store.duels.add(base, new_duel(seed, prompt=prompt)) for seed, prompt in enumerate([HELD_OUT, "unseen"])]
    assert store.pairs.count_unjudged(base) == 0
    assert store.pairs.prompt_counts(base) == {}
    assert store.prompts.ids_with_pairs() == set()
    assert store.pairs.for_training(base, unjudged=10) == []
    assert store.pair_margins.list_missing(base, 1, limit=10) == []
    assert store.imports.list_unencoded(base, after=0, limit=10) == []
    with pytest.raises(BadInputError, match="is a duel"):
        store.gold.set(base, duels[0].pair_id, Outcome.A, by="administrator")
    for shown in offered(store, base, anna, count=2):
        choose_version(store, shown, 1)
    assert store.votes.count(base) == 2
    assert store.votes.training_votes(base) == []
    assert store.votes.new_preferences(base).count == store.votes.count_new_preferences(base, at_most=9) == 0
    assert store.vote_records.all(base) == []
    assert offered(store, base, anna, AssignmentRules(repeat_rate=1.0, repeat_after=1)) == []
    store.pairs.add(base, new_pair(prompt="unseen"))
    (shown,) = offered(store, base, anna, AssignmentRules())
    choose_version(store, shown, 0)
    assert [vote.pair_id for vote in store.votes.training_votes(base)] == [shown.pair_id]


def test_exports_for_training_leave_duels_out(store: Store, base: BaseModelRef, live: int, anna: Annotator) -> None:
    duel: Duel = store.duels.add(base, new_duel())
    choose_version(store, offered(store, base, anna)[0], live)
    (pair,) = store.voted_pairs.page(base, last_vote=99)
    assert (pair.id, pair.source, [vote.purpose.value for vote in pair.votes]) == (
        duel.pair_id,
        PairSource.DUEL,
        ["duel"],
    )

import random

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Annotator, Choice, Outcome
from dmpo_app.store import Store
from tests.store.store_data import HOUR, issue, new_pair


def test_records_tell_side_time_and_outcome_of_every_live_vote_skips_included(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(6)])
    given: list[tuple[int, int, int, bool, int]] = []
    for who, choice, elapsed in ((anna, Choice.LEFT, 900), (ben, Choice.SKIP, 0), (anna, Choice.RIGHT, 1500)):
        assignment = issue(store, base, who, seed=len(given))[0]
        vote = store.votes.record(assignment.id, who.id, choice, elapsed)
        given.append((vote.vote_id, who.id, assignment.pair_id, assignment.a_on_left, elapsed))
    last = store.assignments.issue(base, ben.id, 1, rng=random.Random(0), lifetime=HOUR).result()[0]
    store.votes.undo(store.votes.record(last.id, ben.id, Choice.TIE, 100).vote_id, ben.id)
    records = store.vote_records.all(base)
    assert [(r.vote_id, r.annotator_id, r.pair_id, r.a_on_left, r.elapsed_ms) for r in records] == given
    assert records[1].outcome is Outcome.SKIP
    for record, choice in ((records[0], Choice.LEFT), (records[2], Choice.RIGHT)):
        assert (record.outcome is Outcome.A) == (record.a_on_left == (choice is Choice.LEFT))
    assert store.vote_records.public_ids(base) == {anna.id: anna.public_id, ben.id: ben.public_id}


def test_another_models_votes_are_not_among_them(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    store.pairs.add_many(base, [new_pair()])
    assignment = issue(store, base, anna)[0]
    store.votes.record(assignment.id, anna.id, Choice.LEFT, 900)
    other = store.models.register("other", "stable-diffusion", "e" * 64)
    assert store.vote_records.all(other) == []
    assert store.vote_records.public_ids(other) == {}

"""A struck annotator: nothing of theirs counts, nothing of it is deleted, and all of it comes back."""

import random
from collections.abc import Sequence
from datetime import timedelta

import pytest

from dmpo_app.domain.campaign import ReportReason, ReportRules
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.prompt import NewPrompt
from dmpo_app.domain.vote import Annotator, AssignmentRules, Candidate, CandidateFeature
from dmpo_app.errors import ForbiddenError, NotFoundError
from dmpo_app.store import Store
from tests.store.store_data import HOUR, Clock, issue, new_pair, scalar, vote_once


def propose(store: Store, who: Annotator, text: str) -> int:
    state = store.prompts.snapshot(held_out=True).state
    assert store.prompts.propose(NewPrompt(text, text, False), annotator_id=who.id, per_day=9, expected=state)
    return int(store.read("SELECT id FROM prompts WHERE text = :text", text=text)[0][0])


def retired_prompts(store: Store) -> set[int]:
    return {row.id for row in store.read("SELECT id FROM prompts WHERE retired_at IS NOT NULL")}


def test_votes_reports_and_prompts_count_no_more_and_come_back(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator, clock: Clock
) -> None:
    first, second = (store.pairs.add(base, new_pair(number)).id for number in (0, 1))
    _, kept = vote_once(store, base, anna)
    shown, theirs = vote_once(store, base, ben)
    store.reports.add(shown.id, ben.id, ReportReason.BROKEN, None)
    by_hand, by_strike = propose(store, ben, "a boat"), propose(store, ben, "a tree")
    store.prompt_catalog.retire([by_hand], by="admin")
    assert scalar(store, "SELECT count(*) FROM pairs WHERE retired_at IS NOT NULL") == 1
    clock.advance(timedelta(minutes=1))
    struck = store.strikes.strike(ben.id, by="admin")
    assert (struck.votes, struck.reports, struck.prompts) == (1, 1, 1)
    assert [vote.vote_id for vote in store.votes.training_votes(base)] == [kept.vote_id]
    assert [vote.vote_id for vote in store.vote_records.all(base)] == [kept.vote_id]
    assert store.votes.new_preferences(base).count == store.votes.count_new_preferences(base, at_most=9) == 1
    [exported] = [pair for pair in store.voted_pairs.page(base, last_vote=99) if pair.votes]
    assert exported.id == first
    assert scalar(store, "SELECT count(*) FROM pairs WHERE retired_at IS NOT NULL") == 0
    assert retired_prompts(store) == {by_hand, by_strike}
    assert store.strikes.list() == [store.strikes.strike(ben.id, by="admin")] == [struck], "twice changes nothing"
    store.strikes.restore(ben.id, by="admin")
    store.reports.settle_reported_by(ben.id, {})
    assert {vote.vote_id for vote in store.vote_records.all(base)} == {kept.vote_id, theirs.vote_id}
    assert scalar(store, f"SELECT count(*) FROM pairs WHERE id = {second} AND retired_at IS NOT NULL") == 1
    assert retired_prompts(store) == {by_hand}, "what was retired by hand stays so"
    store.strikes.restore(ben.id, by="admin")
    assert [act.act for act in store.audit.list()] == ["restore_annotator", "strike_annotator", "retire_prompts"]
    assert store.audit.list()[1].subject == f"annotator {ben.public_id}: 1 votes, 1 open reports, 1 prompts"


def test_what_a_struck_annotator_does_next_does_not_count_either(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(3)])
    store.strikes.strike(ben.id, by="admin")
    vote_once(store, base, ben)
    report = store.reports.add(issue(store, base, ben)[0].id, ben.id, ReportReason.UNSAFE, None)
    assert report.retired_at is None
    assert store.votes.training_votes(base) == []
    with pytest.raises(ForbiddenError, match="no more prompts"):
        propose(store, ben, "a lighthouse")
    assert store.annotators.vouched() == frozenset()
    store.strikes.restore(ben.id, by="admin")
    store.reports.settle_reported_by(ben.id, {})
    assert len(store.votes.training_votes(base)) == 1
    assert store.reports.list(base)[0].retired_at is not None


def test_a_confirmed_report_of_a_struck_annotator_stands(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    store.pairs.add(base, new_pair())
    report = store.reports.add(issue(store, base, ben)[0].id, ben.id, ReportReason.UNSAFE, None)
    store.reports.confirm(base, report.id, by="admin")
    store.strikes.strike(ben.id, by="admin")
    assert issue(store, base, anna) == []


def test_strategies_do_not_see_the_votes_of_a_struck_annotator(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    class Watching:
        overlap = None
        required_features = frozenset({CandidateFeature.WINS})
        seen: list[Candidate]

        def order(self, candidates: Sequence[Candidate], rng: random.Random) -> list[Candidate]:
            self.seen = list(candidates)
            return self.seen

    store.pairs.add(base, new_pair())
    vote_once(store, base, ben)
    strategy = Watching()

    def num_wins() -> int:
        third, rules = store.annotators.ensure("third"), AssignmentRules(strategy=strategy)
        store.assignments.issue(base, third.id, 1, rng=random.Random(0), lifetime=HOUR, rules=rules).result()
        return sum(strategy.seen[0].wins)

    assert num_wins() == 1
    store.strikes.strike(ben.id, by="admin")
    assert num_wins() == 0


def test_nobody_is_struck_by_a_number_that_is_nobodys(store: Store, base: BaseModelRef) -> None:
    for act in (store.strikes.strike, store.strikes.restore):
        with pytest.raises(NotFoundError, match="no such annotator"):
            act(77, by="admin")


def test_only_the_annotators_own_reports_are_settled_anew(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(2)])
    rules = ReportRules(2)
    for who in (anna, ben):
        for shown in issue(store, base, who, 2):
            store.reports.add(shown.id, who.id, ReportReason.OTHER, None, rules=rules)
    assert scalar(store, "SELECT count(*) FROM pairs WHERE retired_at IS NOT NULL") == 2
    store.strikes.strike(anna.id, by="admin", rules={base.id: rules})
    assert scalar(store, "SELECT count(*) FROM pairs WHERE retired_at IS NOT NULL") == 0
    store.strikes.restore(anna.id, by="admin")
    store.reports.settle_reported_by(anna.id, {base.id: rules})
    assert scalar(store, "SELECT count(*) FROM pairs WHERE retired_at IS NOT NULL") == 2

"""A reported pair leaves the pool at once and comes back when an administrator says so."""

from functools import partial

import pytest

from dmpo_app.domain.campaign import ReportReason, ReportRules
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Annotator, Choice
from dmpo_app.errors import ExpiredError, ForbiddenError, NotFoundError
from dmpo_app.store import Store
from tests.store.store_data import issue, new_pair, scalar, vote_once
from tests.store.test_many_voters import in_threads


def report(store: Store, assignment_id: str, who: Annotator, *, threshold: int = 1) -> int:
    return store.reports.add(
        assignment_id, who.id, ReportReason.UNSAFE, "not for children", rules=ReportRules(threshold)
    ).id


def test_a_reported_pair_is_neither_offered_nor_open_nor_trained_on(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    first, second = (store.pairs.add(base, new_pair(number)).id for number in (0, 1))
    shown, _ = vote_once(store, base, anna)
    bens = issue(store, base, ben, 2)
    open_at_ben = next(one for one in bens if one.pair_id == first)
    report(store, shown.id, anna)
    assert [one.pair_id for one in issue(store, base, ben, 2)] == [second]
    with pytest.raises(ExpiredError):
        store.votes.record(open_at_ben.id, ben.id, Choice.LEFT, 10)
    assert issue(store, base, store.annotators.ensure("newcomer"), 2)[0].pair_id == second
    assert store.votes.training_votes(base) == []
    assert store.votes.new_preferences(base).count == store.votes.count_new_preferences(base, at_most=5) == 0
    assert store.pairs.count_unjudged(base) == 0
    assert [pair.id for pair in store.pairs.for_training(base, unjudged=9)] == [second]


def test_clearing_the_report_brings_the_pair_and_its_votes_back(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    pair = store.pairs.add(base, new_pair())
    shown, vote = vote_once(store, base, anna)
    number = report(store, shown.id, anna)
    cleared = store.reports.clear(base, number, by="the administrator", rules=ReportRules(1))
    assert (cleared.cleared_by, cleared.retired_at) == ("the administrator", None)
    assert [one.vote_id for one in store.votes.training_votes(base)] == [vote.vote_id]
    assert [one.pair_id for one in issue(store, base, ben)] == [pair.id]
    again = store.reports.clear(base, number, by="another", rules=ReportRules(1))
    assert again == cleared, "twice changes nothing"
    (act,) = store.audit.list()
    assert (act.actor, act.act, act.subject) == (
        "the administrator",
        "clear_report",
        f"report {number} of pair {pair.id}",
    )
    assert report(store, shown.id, anna) > number, "it can be reported anew"


def test_so_many_people_have_to_agree_and_one_person_counts_once(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    store.pairs.add(base, new_pair())
    shown, bens = issue(store, base, anna)[0], issue(store, base, ben)[0]
    first = report(store, shown.id, anna, threshold=2)
    assert report(store, shown.id, anna, threshold=2) == first
    assert scalar(store, "SELECT retired_at FROM pairs") is None
    second = report(store, bens.id, ben, threshold=2)
    assert scalar(store, "SELECT retired_at FROM pairs") is not None
    store.reports.clear(base, second, by="admin", rules=ReportRules(2))
    assert scalar(store, "SELECT retired_at FROM pairs") is None
    assert [one.id for one in store.reports.list(base, only_open=True)] == [first]
    assert [one.id for one in store.reports.list(base, before=second)] == [first]


def test_only_what_was_shown_to_a_person_can_be_reported_by_them(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    store.pairs.add(base, new_pair())
    shown = issue(store, base, anna)[0]
    with pytest.raises(ForbiddenError):
        report(store, shown.id, ben)
    with pytest.raises(NotFoundError):
        report(store, "made up", ben)
    with pytest.raises(NotFoundError):
        store.reports.clear(base, 7, by="admin", rules=ReportRules(1))
    assert store.reports.list(base) == []


def test_a_vote_on_a_reported_pair_that_is_taken_back_does_not_open_it_again(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    store.pairs.add(base, new_pair())
    shown, vote = vote_once(store, base, anna)
    report(store, shown.id, anna)
    store.votes.undo(vote.vote_id, anna.id)
    assert issue(store, base, anna) == []
    assert store.votes.count(base) == 0


def test_reports_and_votes_at_the_same_time_leave_counts_right(store: Store, base: BaseModelRef) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(8)])
    people = [store.annotators.ensure(f"person {number}") for number in range(6)]

    def take_part(person: Annotator) -> None:
        while shown := issue(store, base, person, 2, seed=person.id):
            for one in shown:
                try:
                    store.votes.record(one.id, person.id, Choice.TIE, 10)
                except ExpiredError:
                    continue
            if person.id % 2:
                report(store, shown[-1].id, person)

    in_threads([partial(take_part, person) for person in people])
    standing = {one.pair_id for one in store.reports.list(base, only_open=True)}
    assert standing
    assert scalar(store, "SELECT count(*) FROM pairs WHERE retired_at > 0") == len(standing)
    assert not {vote.pair_id for vote in store.votes.training_votes(base)} & standing

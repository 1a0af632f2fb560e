"""Reports where not everybody is established: they hide a pair from who reported it, and few pairs from others."""

import random
from collections.abc import Sequence

import pytest

from dmpo_app.domain.campaign import Report, ReportReason, ReportRules
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Annotator, Choice, Outcome, Question, SubmittedVote
from dmpo_app.errors import ConflictError, ExpiredError
from dmpo_app.store import Store
from tests.store.store_data import HOUR, issue, new_pair, scalar, vote_once

RULES = ReportRules(2, established=frozenset(), reports_to_hide=3, max_hidden_share=0.1)


def report(store: Store, base: BaseModelRef, who: Annotator, pair_id: int, **more: object) -> Report:
    """Somebody is shown the pair and reports it."""
    shown = next(one for one in issue(store, base, who, 16) if one.pair_id == pair_id)
    values: dict[str, object] = {"rules": RULES, **more}
    return store.reports.add(shown.id, who.id, ReportReason.BROKEN, None, **values)  # type: ignore[arg-type]


def newcomers(store: Store, count: int) -> Sequence[Annotator]:
    return [store.annotators.ensure(f"newcomer {number}") for number in range(count)]


@pytest.fixture
def pairs(store: Store, base: BaseModelRef) -> list[int]:
    return [pair.id for pair in store.pairs.add_many(base, [new_pair(number) for number in range(10)])]


def test_a_reported_pair_is_never_shown_again_to_who_reported_it_and_still_to_others(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator, pairs: list[int]
) -> None:
    shown = issue(store, base, anna, 3)
    made = store.reports.add(shown[0].id, anna.id, ReportReason.UNSAFE, None, rules=RULES)
    assert (made.retired_at, made.hidden_at) == (None, None)
    with pytest.raises(ExpiredError):
        store.votes.submit(shown[0].id, anna.id, SubmittedVote(Choice.LEFT), 10).result()
    everything = {one.pair_id for one in issue(store, base, anna, 16)}
    assert everything == set(pairs) - {made.pair_id}
    store.reports.clear(base, made.id, by="admin", rules=RULES)
    assert {one.pair_id for one in issue(store, base, anna, 16)} == everything, "not after it was cleared either"
    assert made.pair_id in {one.pair_id for one in issue(store, base, ben, 16)}


def test_nor_with_another_question_nor_as_a_vote_that_was_undone(
    store: Store, base: BaseModelRef, anna: Annotator, pairs: list[int]
) -> None:
    shown, vote = vote_once(store, base, anna)
    store.reports.add(shown.id, anna.id, ReportReason.BROKEN, None, rules=RULES)
    store.votes.undo(vote.vote_id, anna.id)
    assert shown.pair_id not in {one.pair_id for one in issue(store, base, anna, 16)}

    questions = (Question.OVERALL, Question.FIT)
    asked = store.assignments.issue(
        base, anna.id, 32, rng=random.Random(0), lifetime=HOUR, questions=questions
    ).result()
    assert shown.pair_id not in {one.pair_id for one in asked}


def test_newcomers_hide_a_pair_only_together_and_its_votes_go_on_counting(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator, pairs: list[int]
) -> None:
    shown, vote = vote_once(store, base, anna)
    *first, last = (report(store, base, who, shown.pair_id) for who in newcomers(store, 3))
    assert [one.hidden_at for one in first] == [None, None]
    assert last.hidden_at is not None
    assert last.retired_at is None
    assert shown.pair_id not in {one.pair_id for one in issue(store, base, ben, 16)}
    assert [one.vote_id for one in store.votes.training_votes(base)] == [vote.vote_id]
    assert store.pairs.count_unjudged(base) <= 9
    store.reports.clear_all(base, by="admin", rules=RULES)
    assert shown.pair_id in {one.pair_id for one in issue(store, base, ben, 16)}


def test_those_of_one_network_count_once(store: Store, base: BaseModelRef, pairs: list[int]) -> None:
    crowd = newcomers(store, 6)
    near = [report(store, base, who, pairs[0], network="aa") for who in crowd[:4]]
    assert [one.hidden_at for one in near] == [None] * 4
    assert report(store, base, crowd[4], pairs[0], network="bb").hidden_at is None
    assert report(store, base, crowd[5], pairs[0], network="cc").hidden_at is not None


def test_no_crowd_of_newcomers_hides_more_than_its_share_or_retires_anything(
    store: Store, base: BaseModelRef, pairs: list[int]
) -> None:
    for who in newcomers(store, 12):
        for pair_id in pairs:
            if any(one.pair_id == pair_id for one in issue(store, base, who, 16)):
                report(store, base, who, pair_id)
    assert scalar(store, "SELECT count(*) FROM pairs WHERE hidden_at IS NOT NULL") == 1
    assert scalar(store, "SELECT count(*) FROM pairs WHERE retired_at IS NOT NULL") == 0


def test_established_people_and_administrators_retire_a_pair(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator, pairs: list[int]
) -> None:
    rules = ReportRules(2, established=frozenset({anna.id, ben.id}), reports_to_hide=3, max_hidden_share=0.1)
    assert report(store, base, anna, pairs[0], rules=rules).retired_at is None
    assert report(store, base, newcomers(store, 1)[0], pairs[0], rules=rules).retired_at is None
    assert report(store, base, ben, pairs[0], rules=rules).retired_at is not None
    single = report(store, base, newcomers(store, 1)[0], pairs[1])
    confirmed = store.reports.confirm(base, single.id, by="admin", rules=RULES)
    assert (confirmed.confirmed_by, confirmed.retired_at is not None) == ("admin", True)
    assert store.reports.confirm(base, single.id, by="another", rules=RULES) == confirmed, "twice changes nothing"
    assert store.reports.clear_all(base, by="admin", rules=rules) == 3
    retired = store.read("SELECT id FROM pairs WHERE retired_at IS NOT NULL")
    assert [row.id for row in retired] == [pairs[1]], "an administrator's word is not cleared in bulk"
    assert store.reports.clear(base, single.id, by="admin", rules=RULES).retired_at is None
    assert [act.act for act in store.audit.list()] == ["clear_report", "clear_reports", "confirm_report"]


def test_the_reports_of_one_annotator_are_cleared_at_once(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator, pairs: list[int]
) -> None:
    for pair_id in pairs[:4]:
        report(store, base, anna, pair_id)
    report(store, base, ben, pairs[0])
    assert store.reports.clear_all(base, by="admin", annotator_id=anna.id) == 4
    assert [one.annotator for one in store.reports.list(base, only_open=True)] == [ben.public_id]
    assert store.reports.clear_all(base, by="admin", annotator_id=anna.id) == 0
    assert len(store.audit.list()) == 1


def test_whose_report_was_cleared_hides_the_pair_no_more(store: Store, base: BaseModelRef, pairs: list[int]) -> None:
    crowd = newcomers(store, 4)
    shown = {who.id: next(one for one in issue(store, base, who, 16) if one.pair_id == pairs[0]) for who in crowd}

    def report_again(who: Annotator) -> Report:
        return store.reports.add(shown[who.id].id, who.id, ReportReason.BROKEN, None, rules=RULES)

    assert [report_again(who).hidden_at is not None for who in crowd[:3]] == [False, False, True]
    assert store.reports.clear_all(base, by="admin", rules=RULES) == 3
    assert [report_again(who).hidden_at is not None for who in crowd] == [False] * 4
    [last, *_] = store.reports.list(base, only_open=True)
    assert store.reports.confirm(base, last.id, by="admin", rules=RULES).retired_at is not None
    store.reports.clear(base, last.id, by="admin", rules=RULES)
    with pytest.raises(ConflictError, match="was cleared by admin"):
        store.reports.confirm(base, last.id, by="admin", rules=RULES)


def test_newcomers_hide_no_gold_pair(store: Store, base: BaseModelRef, pairs: list[int]) -> None:
    gold, usual = pairs[:2]
    store.gold.set(base, gold, Outcome.A, by="admin")
    for who in newcomers(store, 3):
        for one in issue(store, base, who, 16):
            if one.pair_id in (gold, usual):
                store.reports.add(one.id, who.id, ReportReason.BROKEN, None, rules=RULES)
    assert store.read("SELECT id FROM pairs WHERE hidden_at IS NOT NULL") == [(usual,)]

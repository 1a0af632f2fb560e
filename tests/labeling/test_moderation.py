"""Moderation in public mode: striking and restoring, where standing decides what reports do."""

import pytest

from dmpo_app.domain.campaign import ReportReason
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Annotator, Choice
from dmpo_app.labeling.moderation import Moderation
from dmpo_app.labeling.quality.quality_report import hash_name
from dmpo_app.labeling.quality.standing import Standings
from dmpo_app.labeling.sign_in import load_or_create_key
from dmpo_app.settings import LabelingSettings, NewcomerSettings, Settings
from dmpo_app.store import Store
from tests.store.store_data import issue, new_pair, scalar

RETIRED = "SELECT count(*) FROM pairs WHERE retired_at IS NOT NULL"


@pytest.fixture
def other(store: Store) -> BaseModelRef:
    return store.models.register("other", "stable_diffusion", "f" * 64)


def settings_of(store: Store) -> Settings:
    """Public; one vote for an image establishes."""
    newcomers = NewcomerSettings(record_votes=1, record_hours=0)
    return Settings(home=store.home, public=True, labeling=LabelingSettings(newcomers=newcomers))


def moderation_of(store: Store, base: BaseModelRef) -> Moderation:
    return Moderation(store, base, Standings(store, base, settings_of(store)))


def report_pair(store: Store, base: BaseModelRef, who: Annotator) -> None:
    """Vote on one of two pairs, and so be established, and report the other, which is the first."""
    rules = Standings(store, base, settings_of(store)).report_rules
    shown = {one.pair_id: one for one in issue(store, base, who, 2)}
    voted = shown[max(shown)]
    store.votes.record(voted.id, who.id, Choice.LEFT, 900)
    store.reports.add(shown[min(shown)].id, who.id, ReportReason.BROKEN, None, rules=rules())


def test_who_is_restored_is_established_again_and_so_are_their_reports(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    store.pairs.add_many(base, [new_pair(0), new_pair(1)])
    moderation = moderation_of(store, base)
    for who in (anna, ben):
        report_pair(store, base, who)
    assert scalar(store, RETIRED) == 1, "two established people have reported it"
    moderation.strike(anna.public_id, by="admin")
    assert scalar(store, RETIRED) == 0
    moderation.restore(anna.public_id, by="admin")
    assert scalar(store, RETIRED) == 1


def test_pairs_of_another_lineage_go_by_who_is_established_there(
    store: Store, base: BaseModelRef, other: BaseModelRef, anna: Annotator, ben: Annotator
) -> None:
    store.pairs.add_many(other, [new_pair(0), new_pair(1)])
    carl = store.annotators.ensure("carl")
    for who in (anna, ben, carl):
        report_pair(store, other, who)
    assert scalar(store, RETIRED) == 1
    moderation = moderation_of(store, base)  # where none of them has a vote
    moderation.strike(carl.public_id, by="admin")
    assert scalar(store, RETIRED) == 1, "two of those who are established there are left"
    moderation.strike(ben.public_id, by="admin")
    assert scalar(store, RETIRED) == 0
    moderation.restore(ben.public_id, by="admin")
    assert scalar(store, RETIRED) == 1


def test_who_never_voted_here_is_restored_by_the_name_in_the_list(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    moderation = moderation_of(store, base)
    moderation.strike(anna.public_id, by="admin")
    moderation.restore(hash_name(load_or_create_key(store.home), anna.public_id), by="admin")
    assert store.strikes.list() == []


def test_clearing_many_reports_is_done_in_parts_and_leaves_none(
    store: Store, base: BaseModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmpo_app.store.voting.reports._CLEARED_AT_ONCE", 2)
    store.pairs.add_many(base, [new_pair(0), new_pair(1)])
    for number in range(5):
        report_pair(store, base, store.annotators.ensure(f"someone {number}"))
    assert moderation_of(store, base).clear_reports(by="admin") == 5
    assert store.reports.list(base, only_open=True) == []
    assert [act.subject for act in store.audit.list()] == ["1 reports", "2 reports", "2 reports"]
    assert scalar(store, RETIRED) == 0

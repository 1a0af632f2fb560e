"""The selection of votes for an export: filters, verdicts, and what never leaves."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from dmpo_app.domain.campaign import ReportReason, ReportRules
from dmpo_app.domain.vote import Choice, Outcome, Purpose, Question
from dmpo_app.errors import BadInputError
from dmpo_app.exchange.exporting import Selection
from dmpo_app.exchange.exporting.export_rows import majority_consensus, posterior_consensus
from dmpo_app.exchange.exporting.output_files import assign_split
from dmpo_app.labeling.quality.quality_report import build_report
from dmpo_app.settings import Settings
from dmpo_app.store.voting.vote_queries import ExportVote
from tests.exchange.exporting.campaign import Campaign
from tests.store.store_data import publish_version

A, B, TIE, BAD, SKIP = Outcome.A, Outcome.B, Outcome.TIE, Outcome.BOTH_BAD, Outcome.SKIP


def votes_in(campaign: Campaign, selection: Selection | None = None) -> set[int]:
    return {row["vote"] for row in campaign.rows("votes-jsonl", selection)}


def test_votes_taken_back_or_withdrawn_never_leave(campaign: Campaign) -> None:
    kept = campaign.vote("anna", 0, A)
    withdrawn = campaign.vote("anna", 1, A)
    undone = campaign.vote("anna", 2, A)
    anna = campaign.person("anna")
    campaign.store.votes.undo(undone, anna.id)
    campaign.store.own_votes.withdraw(withdrawn, anna.id)
    assert votes_in(campaign) == {kept}
    assert len(campaign.rows("pick-a-pic")) == 1


def test_pairs_that_reports_have_retired_stay_here_unless_asked_for(campaign: Campaign) -> None:
    kept = campaign.vote("anna", 0, A)
    reported = campaign.vote("anna", 1, A)
    ben = campaign.person("ben")
    assignment = campaign.assignment(ben, 1)
    campaign.store.reports.add(assignment.id, ben.id, ReportReason.OTHER, None, rules=ReportRules(2))
    assert votes_in(campaign) == {kept, reported}, "one report of two that it takes"
    [standing] = campaign.store.reports.list(campaign.base)
    campaign.store.reports.confirm(campaign.base, standing.id, by="admin")
    assert votes_in(campaign) == {kept}
    assert votes_in(campaign, Selection(reported=True)) == {kept, reported}
    _, summary = campaign.export("votes-jsonl")
    assert summary.left_out == {"votes on reported pairs": 1}


def test_votes_are_chosen_by_time_annotator_and_question(campaign: Campaign) -> None:
    start = campaign.clock()
    first = campaign.vote("anna", 0, A)
    second = campaign.vote("ben", 0, B)
    third = campaign.vote("ben", 0, B, question=Question.FIT)
    assert votes_in(campaign, Selection(since=start + timedelta(minutes=2))) == {second, third}
    assert votes_in(campaign, Selection(until=start + timedelta(minutes=2))) == {first}
    assert votes_in(campaign, Selection(question=Question.FIT)) == {third}
    report = build_report(campaign.store, campaign.base, Settings(home=campaign.store.home))
    by_name = [votes_in(campaign, Selection(annotators=frozenset([one.name]))) for one in report.annotators]
    assert sorted(map(sorted, by_name)) == [[first], [second, third]]
    assert len(campaign.rows("pick-a-pic")) == 2  # what rounds learn from, unless another question is named


def test_pairs_are_chosen_by_version_and_agreement(campaign: Campaign) -> None:
    for name, answers in (("anna", (A, A, A)), ("ben", (A, B, A)), ("cleo", (A, A, TIE))):
        for pair, answer in enumerate(answers):
            campaign.vote(name, pair, answer)
    campaign.vote("anna", 3, A)

    def pairs(**wanted: float) -> list[int]:
        rows = campaign.rows("open-image-preferences", Selection(**wanted))  # type: ignore[arg-type]
        return [campaign.pairs.index(row["id"]) for row in rows]

    assert pairs() == [0, 1, 2, 3]
    assert pairs(min_agreement=0.6) == [0, 1, 2, 3]
    assert pairs(min_agreement=0.7) == [0, 3]
    assert pairs(min_agreement=0.7, min_votes=2) == [0]
    publish_version(campaign.store, campaign.base)
    assert votes_in(campaign, Selection(versions=frozenset([1]))) == set()
    assert len(votes_in(campaign, Selection(versions=frozenset([0, 1])))) == 10


def test_a_row_for_each_vote_or_for_each_pair(campaign: Campaign) -> None:
    for name, answer in (("anna", A), ("ben", A), ("cleo", B), ("dora", SKIP)):
        campaign.vote(name, 0, answer)
    assert Counter(row["label_0"] for row in campaign.rows("pick-a-pic")) == {1.0: 2, 0.0: 1}
    (row,) = campaign.rows("pick-a-pic", rows="pairs")
    assert (row["label_0"], row["user_id"], row["ranking_id"]) == (1.0, -1, campaign.pairs[0])
    (row,) = campaign.rows("chosen-rejected")
    assert (row["num_votes"], row["agreement"]) == (3, pytest.approx(2 / 3))
    assert len(campaign.rows("chosen-rejected", rows="votes")) == 3
    with pytest.raises(BadInputError, match="a row for each vote"):
        campaign.export("votes-csv", rows="pairs")


@pytest.mark.parametrize(
    ("answers", "outcome", "agreement"),
    [
        ([A, A, B], A, 2 / 3),
        ([A, B], TIE, 1 / 2),
        ([A, B, TIE, TIE], TIE, 1 / 2),
        ([BAD, BAD, A], BAD, 2 / 3),
        ([B, SKIP, SKIP], B, 1),
    ],
)
def test_the_most_frequent_answer_wins(answers: list[Outcome], outcome: Outcome, agreement: float) -> None:
    verdict = majority_consensus([given(number, answer) for number, answer in enumerate(answers)])
    assert verdict is not None
    assert verdict.outcome is outcome
    assert verdict.agreement == pytest.approx(agreement)


def test_skips_alone_come_to_nothing() -> None:
    assert majority_consensus([given(0, SKIP)]) is None


def test_one_reliable_annotator_outweighs_two_who_click_at_random() -> None:
    votes = [given(0, A), given(1, B), given(2, B)]
    verdict = posterior_consensus(votes, {0: 0.9, 1: 0.55, 2: 0.55})
    assert verdict is not None
    odds = 9 / (0.55 / 0.45) ** 2
    assert verdict.outcome is A
    assert verdict.agreement == pytest.approx(odds / (1 + odds))
    even = posterior_consensus(votes[:2], {0: 0.7, 1: 0.7})
    assert even is not None
    assert even.outcome is TIE


def test_the_posterior_follows_those_whom_others_bear_out(campaign: Campaign) -> None:
    for pair in range(7):
        for name in ("anna", "ben", "cleo"):
            campaign.vote(name, pair, A)
        campaign.vote("troll", pair, B)
        campaign.vote("other troll", pair, (A, B)[pair % 2])
    campaign.vote("anna", 7, A)
    campaign.vote("troll", 7, B)
    assert campaign.pairs[7] not in {row["id"] for row in campaign.rows("open-image-preferences")}
    decided = {row["id"]: row for row in campaign.rows("open-image-preferences", decide="posterior")}
    image_a = campaign.store.pairs.get(campaign.pairs[7]).image_a
    assert decided[campaign.pairs[7]]["chosen"]["path"] == f"{image_a.sha256}.png"


def test_a_prompt_stays_in_its_split_however_it_is_written() -> None:
    sides = Counter(assign_split(f"prompt {number}", 0.2) for number in range(2000))
    assert 320 < sides["test"] < 480
    assert all(assign_split(f"Prompt, {n}!", 0.2) == assign_split(f"prompt {n}", 0.2) for n in range(50))


def given(annotator: int, outcome: Outcome) -> ExportVote:
    return ExportVote(
        id=annotator,
        annotator_id=annotator,
        question=Question.OVERALL,
        purpose=Purpose.VOTE,
        choice=Choice.LEFT,
        outcome=outcome,
        a_on_left=True,
        strength=None,
        comment=None,
        elapsed_ms=0,
        at=datetime(2026, 1, 1, tzinfo=UTC),
    )

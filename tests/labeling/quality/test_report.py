"""The report as a whole, and what leaves the studio."""

import csv
import io
import json

import pytest

from dmpo_app.domain.vote import Outcome
from dmpo_app.labeling.quality import QualityReport, VoteWeighing, quality_report
from dmpo_app.labeling.quality.quality_report import make_name_hasher, to_csv, to_json
from dmpo_app.labeling.tables import safe_cell
from tests.labeling.quality.crowds import Vote, crowd, said

PLAIN = VoteWeighing()


def report_of(votes: list[Vote], weighing: VoteWeighing = PLAIN) -> QualityReport:
    return quality_report(votes, annotator_name=lambda number: f"annotator {number}", weighing=weighing)


def test_who_stands_out_is_flagged_and_the_honest_are_not() -> None:
    votes = crowd([0.88] * 20 + [0.1], pairs=400, judges=3, seed=0)
    left_clicker = [Vote(50, n, Outcome.A if n % 2 else Outcome.B, bool(n % 2), 200) for n in range(100)]
    rows = {row.name: row for row in report_of([*votes, *left_clicker]).annotators}
    assert rows["annotator 20"].flags == ("disagrees",)
    assert set(rows["annotator 50"].flags) == {"side bias", "disagrees", "fast"}
    assert rows["annotator 50"].left.value == 1
    flagged = [name for name, row in rows.items() if row.flags]
    assert len(flagged) <= 3


def test_a_crowd_of_honest_annotators_is_seldom_accused() -> None:
    accused = sum(
        any(row.flags for row in report_of(crowd([0.8] * 30, pairs=150, judges=3, seed=seed)).annotators)
        for seed in range(40)
    )
    assert accused <= 8


def test_the_report_shows_weights_while_they_are_off_and_says_that_they_are() -> None:
    votes = crowd([0.9] * 5 + [0.1], pairs=200, judges=3, seed=1)
    off, on = report_of(votes), report_of(votes, VoteWeighing("dawid_skene"))
    assert (off.weights_in_use, on.weights_in_use) == (False, True)
    assert [row.weight for row in off.annotators] == [row.weight for row in on.annotators]
    assert {row.counts for row in off.annotators} == {1.0}
    assert [row.counts for row in on.annotators] == [row.weight for row in on.annotators]


def test_the_share_that_is_shown_is_the_one_under_the_cap() -> None:
    votes = crowd([0.9] * 5 + [0.1], pairs=200, judges=3, seed=1, activity=[10.0, 1, 1, 1, 1, 1])
    capped = report_of(votes, VoteWeighing("dawid_skene", 0.3))
    assert capped.max_annotator_share == 0.3
    assert max(row.vote_share for row in capped.annotators) == pytest.approx(0.3)
    assert sum(row.vote_share for row in capped.annotators) == pytest.approx(1)
    assert capped.annotators[0].counts < capped.annotators[0].weight


def test_no_votes_make_an_empty_report() -> None:
    report = report_of([])
    assert (report.votes, report.alpha, report.left_p, report.median_ms, report.annotators) == (0, None, None, None, ())
    assert len(to_csv(report).splitlines()) == 1


def test_files_hold_what_the_report_holds_and_no_nan() -> None:
    report = report_of([*said(1, "abt"), *said(2, "aas")])
    loaded = json.loads(to_json(report))
    assert loaded["votes"] == 6
    assert loaded["annotators"][0]["gold"]["value"] is None
    rows = list(csv.DictReader(io.StringIO(to_csv(report))))
    assert [row["annotator"] for row in rows] == ["annotator 1", "annotator 2"]
    assert float(rows[0]["agreement"]) == 0.5
    assert rows[0]["gold"] == ""


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")'])
def test_no_cell_is_a_formula(text: str) -> None:
    assert safe_cell(text) == f"'{text}"
    report = quality_report(said(1, "ab"), annotator_name=lambda _: text, weighing=PLAIN)
    (row,) = csv.DictReader(io.StringIO(to_csv(report), newline=""))
    assert row["annotator"] == f"'{text}"


def test_names_are_keyed_hashes_that_differ_from_home_to_home() -> None:
    public_ids = {1: "AbC", 2: "xYz"}
    here, there = make_name_hasher(b"key of this home", public_ids), make_name_hasher(b"key of another", public_ids)
    assert here(1) == make_name_hasher(b"key of this home", public_ids)(1)
    assert len({here(1), here(2), there(1), there(2)}) == 4
    assert all(len(name) == 12 and set(name) <= set("0123456789abcdef") for name in (here(1), there(2)))

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dmpo_app.domain.vote import Choice, Question, Strength, VoteRecord
from dmpo_app.labeling.tables import as_csv, as_jsonl, csv_header, safe_cell

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
VOTE = VoteRecord(
    vote_id=7,
    prompt="a fox",
    question=Question.OVERALL,
    choice=Choice.LEFT,
    strength=Strength.SLIGHTLY,
    comment=None,
    elapsed_ms=900,
    at=AT,
    undone_at=None,
    withdrawn_at=AT,
    left_image_id=1,
    right_image_id=2,
    versions=(3, 4),
)
PAYLOADS = [
    "=1+1", '=HYPERLINK("http://x","y")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠A",
    "=cmd|' /C calc'!A0", "-2+3+cmd|' /C calc'!A0", "@A1", "+A1", "=1;2", "=\"a\"&\"b\"",
]  # fmt: skip


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_cell_of_a_table_begins_like_a_formula(payload: str) -> None:
    table = csv_header() + as_csv([replace(VOTE, prompt=payload, comment=payload)])
    (row,) = csv.DictReader(io.StringIO(table, newline=""))
    assert row["prompt"] == row["comment"] == f"'{payload}"
    assert all(not cell or cell[0] not in "=+-@\t\r\n＝＋－＠" for cell in row.values())


def test_harmless_text_stays_as_it_is() -> None:
    assert [safe_cell(text) for text in ("a=b", "", "'x", "3")] == ["a=b", "", "'x", "3"]


def test_a_table_has_a_line_for_each_vote_also_where_text_has_several_lines_and_quotes() -> None:
    votes = [replace(VOTE, comment='two\nlines, "quoted"'), replace(VOTE, vote_id=6, strength=None)]
    rows = list(csv.DictReader(io.StringIO(csv_header() + as_csv(votes), newline="")))
    assert [row["vote"] for row in rows] == ["7", "6"]
    assert rows[0]["comment"] == 'two\nlines, "quoted"'
    assert (rows[0]["versions"], rows[0]["withdrawn_at"], rows[1]["strength"]) == (
        "3 4",
        "2026-01-01T12:00:00+00:00",
        "",
    )


def test_lines_of_json_hold_the_same() -> None:
    (line,) = as_jsonl([replace(VOTE, prompt="ein Fuchs — \u2028 =1")]).splitlines()
    assert line.isascii()
    read = json.loads(line)
    assert (read["prompt"], read["choice"], read["strength"]) == ("ein Fuchs — \u2028 =1", "left", "slightly")
    assert (read["versions"], read["undone_at"], read["comment"]) == ([3, 4], None, None)

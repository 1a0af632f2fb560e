"""A person's votes as files: a line of JSON each, or a table that is inert in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import Any

from dmpo_app.domain import VoteRecord

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What spreadsheets take as the beginning of a formula, or leave out before one; full-width forms too."""

COLUMNS = (
    "vote",
    "at",
    "prompt",
    "question",
    "choice",
    "strength",
    "comment",
    "elapsed_ms",
    "undone_at",
    "withdrawn_at",
    "versions",
    "order",
)


def safe_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: one that would begin like one begins with an apostrophe."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def csv_header() -> str:
    """The first line of a table."""
    return _csv_line(COLUMNS)


def as_csv(votes: Iterable[VoteRecord]) -> str:
    """A line for each vote; versions stand in one cell with spaces between."""
    return "".join(_csv_line(safe_cell(_cell(value)) for value in _fields(vote).values()) for vote in votes)


def as_jsonl(votes: Iterable[VoteRecord]) -> str:
    """A line for each vote, ASCII only."""
    return "".join(json.dumps(_fields(vote), ensure_ascii=True) + "\n" for vote in votes)


def _fields(vote: VoteRecord) -> dict[str, Any]:
    values: tuple[Any, ...] = (
        vote.vote_id,
        vote.at.isoformat(),
        vote.prompt,
        vote.question.value,
        vote.choice.value,
        None if vote.strength is None else vote.strength.value,
        vote.comment,
        vote.elapsed_ms,
        None if vote.undone_at is None else vote.undone_at.isoformat(),
        None if vote.withdrawn_at is None else vote.withdrawn_at.isoformat(),
        list(vote.versions),
        None if vote.order is None else list(vote.order),
    )
    return dict(zip(COLUMNS, values, strict=True))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()

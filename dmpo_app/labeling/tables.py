"""A person's votes as files: a line of JSON each, a table that is inert in a spreadsheet, or all in one document."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from dmpo_app.domain.campaign import Agreement
from dmpo_app.domain.vote import Annotator, VoteRecord

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
    return csv_line(COLUMNS)


def as_csv(votes: Iterable[VoteRecord]) -> str:
    """A line for each vote; versions stand in one cell with spaces between."""
    return "".join(csv_line(safe_cell(_cell(value)) for value in _fields(vote).values()) for vote in votes)


def as_jsonl(votes: Iterable[VoteRecord]) -> str:
    """A line for each vote, ASCII only."""
    return "".join(json.dumps(_fields(vote), ensure_ascii=True) + "\n" for vote in votes)


class DocumentParts(NamedTuple):
    """What a document is written from, in this order: `votes` for each page of them."""

    head: str
    votes: Callable[[Iterable[VoteRecord]], str]
    end: str


def document_parts(annotator: Annotator, agreements: Iterable[Agreement]) -> DocumentParts:
    """One JSON object: who, the texts agreed to, and the votes, written as they are read."""
    agreed = [
        {"version": one.version, "sha256": one.text_sha256, "at": one.at.isoformat(), "text": one.text}
        for one in agreements
    ]
    known = {"annotator": annotator.public_id, "handle": annotator.handle, "agreements": agreed}
    separator = "\n"

    def votes(page: Iterable[VoteRecord]) -> str:
        nonlocal separator
        lines = []
        for vote in page:
            lines.append(separator + json.dumps(_fields(vote), ensure_ascii=True))
            separator = ",\n"
        return "".join(lines)

    return DocumentParts(json.dumps(known, ensure_ascii=True)[:-1] + ', "votes": [', votes, "\n]}\n")


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


def csv_line(cells: Iterable[str]) -> str:
    """A line of a table, its end included. What may begin like a formula goes through `safe_cell` first."""
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()

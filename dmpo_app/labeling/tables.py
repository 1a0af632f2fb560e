"""Export of a person's own votes: JSONL, CSV that is inert in a spreadsheet, or one JSON document."""

import csv
import io
import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from dmpo_app.domain.campaign import ConsentAgreement
from dmpo_app.domain.vote import Annotator, VoteRecord

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Beginnings of a formula in spreadsheets, or characters they leave out before one; full-width forms too."""

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
    """Escape a cell that a spreadsheet would take for a formula: an apostrophe goes before it."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def csv_header() -> str:
    """The header line of the CSV file."""
    return csv_line(COLUMNS)


def as_csv(votes: Iterable[VoteRecord]) -> str:
    """Format votes as CSV, a line each; versions stand in one cell with spaces between."""
    return "".join(csv_line(safe_cell(_cell(value)) for value in _fields(vote).values()) for vote in votes)


def as_jsonl(votes: Iterable[VoteRecord]) -> str:
    """Format votes as JSONL, a line each, ASCII only."""
    return "".join(json.dumps(_fields(vote), ensure_ascii=True) + "\n" for vote in votes)


class DocumentParts(NamedTuple):
    """The parts of a JSON document, in the order they are written: `votes` for each page of them."""

    head: str
    votes: Callable[[Iterable[VoteRecord]], str]
    end: str


def document_parts(annotator: Annotator, agreements: Iterable[ConsentAgreement]) -> DocumentParts:
    """Build the parts of one JSON object: annotator, agreements, and the votes, written as they are read."""
    agreement_entries = [
        {"version": one.version, "sha256": one.text_sha256, "at": one.at.isoformat(), "text": one.text}
        for one in agreements
    ]
    header = {"annotator": annotator.public_id, "handle": annotator.handle, "agreements": agreement_entries}
    separator = "\n"

    def votes(page: Iterable[VoteRecord]) -> str:
        nonlocal separator
        lines = []
        for vote in page:
            lines.append(separator + json.dumps(_fields(vote), ensure_ascii=True))
            separator = ",\n"
        return "".join(lines)

    return DocumentParts(json.dumps(header, ensure_ascii=True)[:-1] + ', "votes": [', votes, "\n]}\n")


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
    """Format a line of CSV, its end included. Text from people goes through `safe_cell` first."""
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()

"""The formats there are. A new one is a file in this folder and a line here."""

from __future__ import annotations

from collections.abc import Sequence

from dmpo_app.errors import BadInput
from dmpo_app.exchange.exporting.chosen_rejected import ChosenRejected, OpenImagePreferences
from dmpo_app.exchange.exporting.export_rows import Format
from dmpo_app.exchange.exporting.formats import RawVotes
from dmpo_app.exchange.exporting.pick_a_pic import PickAPic

FORMATS: Sequence[Format] = (
    PickAPic(),
    OpenImagePreferences(),
    ChosenRejected(),
    RawVotes(
        "votes-jsonl", ".jsonl", "raw votes, a line of JSON each: choice, order shown, time, how images were made"
    ),
    RawVotes("votes-csv", ".csv", "the same as a table that no spreadsheet takes for formulas"),
)


def format_named(name: str) -> Format:
    """Raises BadInput that names those there are."""
    for one in FORMATS:
        if one.name == name:
            return one
    known = "\n".join(f"  {one.name}: {one.description}" for one in FORMATS)
    raise BadInput(f"there is no export format {name!r}; there are\n{known}")

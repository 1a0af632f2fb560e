"""The formats there are. A new one is a file in this folder and a line here."""

from __future__ import annotations

from collections.abc import Sequence

from dmpo_app.errors import BadInput
from dmpo_app.exchange.exporting import chosen_rejected, pick_a_pic
from dmpo_app.exchange.exporting import formats as raw_votes
from dmpo_app.exchange.exporting.export_rows import Format

FORMATS: Sequence[Format] = (pick_a_pic.FORMAT, *chosen_rejected.FORMATS, *raw_votes.FORMATS)


def format_named(name: str) -> Format:
    """Raises BadInput that names those there are."""
    for one in FORMATS:
        if one.name == name:
            return one
    known = "\n".join(f"  {one.name}: {one.description}" for one in FORMATS)
    raise BadInput(f"there is no export format {name!r}; there are\n{known}")

"""The formats there are. A new one is a file in this folder and a line here."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dmpo_app.errors import SetupProblem
from dmpo_app.exchange.readers import (
    annotation_tools as argilla,
)
from dmpo_app.exchange.readers import (
    chosen_rejected,
    hpdv2,
    hpdv3,
    label_studio,
    open_image_preferences,
    pairs_jsonl,
    studio_votes,
)
from dmpo_app.exchange.readers import (
    folder_formats as winner_loser_folders,
)
from dmpo_app.exchange.readers import (
    table_formats as pick_a_pic,
)
from dmpo_app.exchange.readers.reader import PreferenceReader

READERS: Sequence[PreferenceReader] = (
    pick_a_pic.READER,
    studio_votes.READER,
    label_studio.READER,
    open_image_preferences.READER,
    argilla.READER,
    hpdv2.READER,
    hpdv3.READER,
    pairs_jsonl.READER,
    winner_loser_folders.READER,
    chosen_rejected.READER,
)
"""The first one that knows the columns reads them; more particular ones come first."""


def detect(columns: Collection[str], where: str) -> PreferenceReader:
    """The reader of rows with these columns. Raises SetupProblem that says what `where` has and what is known."""
    for reader in READERS:
        if reader.detect(columns):
            return reader
    known = "\n".join(f"  {reader.name}: {reader.description}" for reader in READERS)
    raise SetupProblem(f"{where} has the columns {', '.join(sorted(columns))}; known formats are\n{known}")

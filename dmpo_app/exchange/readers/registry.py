"""The formats there are. A new one is a class in this folder and a line here."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dmpo_app.errors import SetupProblem
from dmpo_app.exchange.readers.annotation_tools import Argilla, LabelStudio
from dmpo_app.exchange.readers.folder_formats import HPDv2, WinnerLoserFolders
from dmpo_app.exchange.readers.reader import PreferenceReader
from dmpo_app.exchange.readers.table_formats import (
    ChosenRejected,
    HPDv3,
    OpenImagePreferences,
    PairsJsonl,
    PickAPic,
    StudioVotes,
)

READERS: Sequence[PreferenceReader] = (
    PickAPic(),
    StudioVotes(),
    LabelStudio(),
    OpenImagePreferences(),
    Argilla(),
    HPDv2(),
    HPDv3(),
    PairsJsonl(),
    WinnerLoserFolders(),
    ChosenRejected(),
)
"""The first one that knows the columns reads them; more particular ones come first."""


def detect(columns: Collection[str], where: str) -> PreferenceReader:
    """The reader of rows with these columns. Raises SetupProblem that says what `where` has and what is known."""
    for reader in READERS:
        if reader.detect(columns):
            return reader
    known = "\n".join(f"  {reader.name}: {reader.description}" for reader in READERS)
    raise SetupProblem(f"{where} has the columns {', '.join(sorted(columns))}; known formats are\n{known}")

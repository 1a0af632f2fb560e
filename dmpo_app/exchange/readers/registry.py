"""The formats there are. A new one is a class in this folder and a line here."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dmpo_app.errors import SetupError
from dmpo_app.exchange.readers.annotation_tools import ArgillaReader, LabelStudioReader
from dmpo_app.exchange.readers.folder_formats import HPDv2Reader, WinnerLoserReader
from dmpo_app.exchange.readers.reader import PreferenceReader
from dmpo_app.exchange.readers.table_formats import (
    ChosenRejectedReader,
    HPDv3Reader,
    OpenImagePreferencesReader,
    PairsJsonlReader,
    PickAPicReader,
    StudioVotesReader,
)

READERS: Sequence[PreferenceReader] = (
    PickAPicReader(),
    StudioVotesReader(),
    LabelStudioReader(),
    OpenImagePreferencesReader(),
    ArgillaReader(),
    HPDv2Reader(),
    HPDv3Reader(),
    PairsJsonlReader(),
    WinnerLoserReader(),
    ChosenRejectedReader(),
)
"""The first one that knows the columns reads them; more particular ones come first."""


def detect_reader(columns: Collection[str], source_name: str) -> PreferenceReader:
    """Detect the reader of rows with these columns. Raises SetupError that lists them and the known formats."""
    for reader in READERS:
        if reader.detect(columns):
            return reader
    descriptions = "\n".join(f"  {reader.name}: {reader.description}" for reader in READERS)
    raise SetupError(f"{source_name} has the columns {', '.join(sorted(columns))}; known formats are\n{descriptions}")

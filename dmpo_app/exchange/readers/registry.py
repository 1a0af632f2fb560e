"""The formats there are. A new one is a class in this folder and a line here."""

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
    """Detect the reader of rows with these columns.

    Raises SetupError that lists them, those that the nearest format lacks, and the known formats.
    """
    for reader in READERS:
        if reader.detect(columns):
            return reader
    descriptions = "\n".join(f"  {reader.name}: {reader.description}" for reader in READERS)
    raise SetupError(
        f"{source_name} has the columns {', '.join(sorted(columns))}{_missing_columns(columns)}; known formats are\n"
        f"{descriptions}"
    )


def _missing_columns(columns: Collection[str]) -> str:
    """The columns that the nearest format lacks, in words: that with most columns there, then with fewest missing."""
    present = set(columns)
    variants = [(reader, variant) for reader in READERS for variant in reader.columns if variant & present]
    if not variants:
        return ""
    reader, variant = min(variants, key=lambda one: (-len(one[1] & present), len(one[1] - present)))
    missing = sorted(variant - present)
    return f" and lacks {', '.join(map(repr, missing))} for the nearest format, {reader.name}"

"""The formats there are, and `open_source`. A new format is a class in this folder and a line here."""

from collections.abc import Collection, Sequence
from pathlib import Path

from dmpo_app.domain.limits import ParserLimits
from dmpo_app.errors import SetupError
from dmpo_app.exchange.readers import table_formats
from dmpo_app.exchange.readers.annotation_tools import ArgillaReader, LabelStudioReader
from dmpo_app.exchange.readers.data_files import KINDS, local_source
from dmpo_app.exchange.readers.folder_formats import (
    FoldersSource,
    HPDv2Reader,
    WinnerLoserReader,
    is_winner_loser_folder,
)
from dmpo_app.exchange.readers.reader import PreferenceReader
from dmpo_app.exchange.readers.source import PreferenceSource

READERS: Sequence[PreferenceReader] = (
    table_formats.PickAPicReader(),
    table_formats.StudioVotesReader(),
    LabelStudioReader(),
    table_formats.OpenImagePreferencesReader(),
    ArgillaReader(),
    HPDv2Reader(),
    table_formats.HPDv3Reader(),
    table_formats.PairsJsonlReader(),
    WinnerLoserReader(),
    table_formats.ChosenRejectedReader(),
)
"""The first one that knows the columns reads them; more particular ones come first."""


_SHOWN_COLUMNS, _SHOWN_LENGTH = 60, 60


def detect_reader(columns: Collection[str], source_name: str) -> PreferenceReader:
    """Detect the reader of rows with these columns.

    Raises SetupError that lists them, those that the nearest format lacks, and the known formats.
    """
    for reader in READERS:
        if reader.detect(columns):
            return reader
    descriptions = "\n".join(f"  {reader.name}: {reader.description}" for reader in READERS)
    raise SetupError(
        f"{source_name} has the columns {_listed(columns)}{_missing_columns(columns)}; known formats are\n"
        f"{descriptions}"
    )


def _listed(columns: Collection[str]) -> str:
    """Columns in words, as many and as much of each as fits a message."""
    shown = [name if len(name) <= _SHOWN_LENGTH else name[:_SHOWN_LENGTH] + "…" for name in sorted(columns)]
    rest = len(shown) - _SHOWN_COLUMNS
    return ", ".join(shown[:_SHOWN_COLUMNS]) + (f" and {rest:,} others" if rest > 0 else "") or "none"


def _missing_columns(columns: Collection[str]) -> str:
    """The columns that the nearest format lacks, in words: that with most columns there, then with fewest missing."""
    present = set(columns)
    variants = [(reader, variant) for reader in READERS for variant in reader.columns if variant & present]
    if not variants:
        return ""
    reader, variant = min(variants, key=lambda one: (-len(one[1] & present), len(one[1] - present)))
    missing = sorted(variant - present)
    return f" and lacks {', '.join(map(repr, missing))} for the nearest format, {reader.name}"


def is_hub_id(dataset: str) -> bool:
    """True for the name of a data set on the hub, which is neither a file nor a folder here."""
    path = Path(dataset).expanduser()
    looks_local = dataset.count("/") > 1 or dataset.startswith((".", "~", "/")) or path.suffix in KINDS
    return not looks_local and not path.exists()


def open_source(
    dataset: str,
    *,
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
    limits: ParserLimits | None = None,
) -> PreferenceSource:
    """Open a file, a folder or a hub id as a source, in this very process; nothing but its beginning is read.

    For data that strangers made, `readers.parsed.open_dataset` calls this in a process with limits.

    Args:
        dataset: a .parquet, .jsonl or .json file; a folder of such files, of `Dataset.save_to_disk`, or with
            `winners` and `losers` in it; or a hub id, which is streamed.
        split: of a hub id, of a saved DatasetDict, or what the names of a folder's files begin with.
        config: of a hub id that has several.
        revision: the commit of a hub id; None: its present one.
        limits: of sizes; None: their defaults.

    Raises SetupError when there is no such data set or the library that reads it is not installed,
    UnreadableFileError for a file that cannot be read or exceeds the limits.
    """
    path = Path(dataset).expanduser()
    limits = limits or ParserLimits()
    if path.is_dir() and is_winner_loser_folder(path):
        return FoldersSource(path)
    if path.exists():
        return local_source(path, split, limits)
    if not is_hub_id(dataset):
        raise SetupError(f"there is no data set at {dataset}; expected a file, a folder or a hub id such as owner/name")
    from dmpo_app.exchange.readers.hugging_face import hub_source  # here, since it imports huggingface_hub

    return hub_source(dataset, split, config, limits, revision=revision)

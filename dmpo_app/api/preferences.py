"""Preferences to learn from, wherever they are: a file, the hub, a `datasets` object, rows in memory."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmpo_app.api.config import python_words
from dmpo_app.errors import BadInputError
from dmpo_app.exchange.readers.memory import PAIRS_READER, MemorySource, dataset_source
from dmpo_app.exchange.readers.parsed import open_dataset
from dmpo_app.exchange.readers.reader import PreferencePair, PreferenceReader, read_row
from dmpo_app.exchange.readers.registry import detect_reader
from dmpo_app.exchange.readers.source import PreferenceSource, open_rows


@dataclass(frozen=True, slots=True)
class Preferences:
    """Pairs to learn from: a data set that is read as it is needed. Iterating gives its usable pairs, in order."""

    source: PreferenceSource
    reader: PreferenceReader

    def __iter__(self) -> Iterator[PreferencePair]:
        for number, row in enumerate(open_rows(self.source, self.reader, None, 0)):
            for pair in read_row(self.reader, row, str(number), self.source.folder):
                if isinstance(pair, PreferencePair):
                    yield pair

    def __repr__(self) -> str:
        return f"<Preferences of {self.source.name}, format {self.reader.name}>"


def load_preferences(
    source: Any, *, split: str = "train", config: str | None = None, image_folder: str | os.PathLike[str] = "."
) -> Preferences:
    """Load preferences; the format is found from the columns.

    Args:
        source: a .parquet, .jsonl or .json file, a folder of them, a hub id (streamed); a `datasets` object; or rows
            in memory, a list or another iterable of dicts such as `{"prompt": ..., "chosen": ..., "rejected": ...}`,
            or of `PreferencePair`s. Images in rows are PIL images, uint8 arrays, `Path`s, bytes, or texts that are
            paths below `image_folder`.
        split: of a hub id or a dictionary of data sets, or what the names of a folder's files begin with.
        config: of a hub id that has several.

    Raises SetupError or BadInputError: no such data set, no rows, columns that are missing for any known format.
    """
    if isinstance(source, Preferences):
        return source
    folder = Path(image_folder).expanduser()
    with python_words():
        if isinstance(source, str | os.PathLike):
            opened = open_dataset(os.fspath(source), split=split, config=config)
        elif type(source).__module__.partition(".")[0] == "datasets":
            opened = dataset_source(source, split=split, folder=folder)
        elif isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
            opened = MemorySource(source, name=f"a {type(source).__name__} of rows", folder=folder)
        else:
            raise BadInputError(
                f"preferences cannot be loaded from a {type(source).__name__}; expected a path, a hub id, a "
                "datasets.Dataset or a list of dicts"
            )
        is_pairs = PAIRS_READER.detect(opened.columns)
        return Preferences(opened, PAIRS_READER if is_pairs else detect_reader(opened.columns, opened.name))

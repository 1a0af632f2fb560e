"""Sources of rows that a program has in memory: lists of dicts, iterables, pairs, `datasets.Dataset`.

Images in rows may be what Python code has at hand: a PIL image, a uint8 array (H, W, 3), a `pathlib.Path`. Each is
turned into a file's bytes as its row is read. A text is a path below the source's folder, as in any data set.

Shapes:  H W height and width of images in pixels.
"""

import hashlib
import io
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dmpo_app.errors import BadInputError
from dmpo_app.exchange.readers.hugging_face import StreamedSource
from dmpo_app.exchange.readers.reader import ImageFolder, PreferencePair, PreferenceReader, Row, RowPair, has_columns
from dmpo_app.exchange.readers.source import Bookmark, CountedRows, PreferenceSource, RowStream


class MemorySource:
    """The PreferenceSource of rows in memory, or of an iterable that makes the same rows each time it is iterated."""

    def __init__(self, rows: Iterable[Any], *, name: str, folder: Path) -> None:
        self.name = name
        self.folder = ImageFolder(folder)
        self._rows = list(rows) if isinstance(rows, Iterator) else rows
        first = next(iter(self._rows), None)
        if first is None:
            raise BadInputError(f"{name} holds no pairs: there is no row in it")
        self.columns: Sequence[str] = tuple(_to_row(first, name))

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 (hex) of all cells, for which every row is read once."""
        digest = hashlib.sha256()
        for row in self.open():
            for column, cell in row.items():
                content = cell if isinstance(cell, bytes) else repr(cell).encode()
                digest.update(f"{column}\0{type(cell).__name__}\0{len(content)}\0".encode())
                digest.update(content)
        return digest.hexdigest()

    def open(self, bookmark: Bookmark | None = None, _columns: Collection[str] | None = None, /) -> RowStream:
        start = 0 if bookmark is None else int(bookmark["position"])
        return CountedRows((_to_row(row, self.name) for row in islice(iter(self._rows), start, None)), start)


class PairsReader:
    """Reader of `PreferencePair`s, which are pairs already; not a format of files."""

    name = "pairs"
    description = "PreferencePair objects"
    columns = (frozenset(field.name for field in fields(PreferencePair)),)
    extras: frozenset[str] | None = frozenset()

    def detect(self, columns: Collection[str]) -> bool:
        return has_columns(self, columns)

    def read_pairs(self, row: Row) -> Iterable[RowPair]:
        yield RowPair(row["prompt"], row["image_a"], row["image_b"], row["wins_a"], row["num_votes"])


PAIRS_READER: PreferenceReader = PairsReader()


def dataset_source(dataset: Any, *, split: str, folder: Path) -> PreferenceSource:
    """The source of a `datasets.Dataset`, `IterableDataset`, or of a split of a dictionary of them.

    A Dataset knows its fingerprint. An IterableDataset does not: its pairs are encoded anew in each process. Raises
    BadInputError for a split there is not.
    """
    if isinstance(dataset, Mapping):
        if split not in dataset:
            raise BadInputError(f"the data set has no split {split!r}; it has {', '.join(map(str, dataset))}")
        dataset = dataset[split]
    is_whole = hasattr(dataset, "to_iterable_dataset")
    if is_whole and len(dataset) == 0:
        raise BadInputError("the data set holds no pairs: there is no row in it")
    plain = dataset.with_format(None)
    return StreamedSource(
        plain.to_iterable_dataset if is_whole else lambda: plain,
        name=f"a datasets.{type(dataset).__name__}",
        fingerprint=dataset._fingerprint if is_whole else uuid.uuid4().hex,
        folder=ImageFolder(folder),
    )


def _to_row(value: Any, name: str) -> dict[str, Any]:
    """A row with images as bytes. Raises BadInputError for what is no row."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if not isinstance(value, Mapping):
        raise BadInputError(f"a row of {name} is a {type(value).__name__}, expected a dict such as {_EXAMPLE}")
    return {str(column): _to_cell(cell) for column, cell in value.items()}


_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_EXAMPLE = '{"prompt": "a red fox", "chosen": image, "rejected": image}'


def _to_cell(cell: Any) -> Any:
    if isinstance(cell, Path):
        return cell.expanduser().read_bytes() if cell.expanduser().is_file() else str(cell)
    if isinstance(cell, np.ndarray) and cell.dtype == np.uint8 and cell.ndim == 3:
        cell = Image.fromarray(cell)
    if isinstance(cell, Image.Image):
        file = io.BytesIO()
        (cell if cell.mode in _PNG_MODES else cell.convert("RGB")).save(file, format="PNG", compress_level=1)
        return file.getvalue()
    return cell

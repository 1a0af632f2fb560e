"""Sources of rows, read lazily in order and from a bookmark on."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from dmpo_app.exchange.readers.reader import ImageFolder, PreferenceReader, Row, columns_read
from dmpo_app.io.files import sha256_hex

Bookmark = Mapping[str, Any]
"""A position in a source, as JSON values."""
_EDGE_BYTES = 1 << 20


class RowStream(Protocol):
    """A stream of rows in an order that is the same every time."""

    def __iter__(self) -> Iterator[Row]:
        """Iterate over the rows, once. Raises StudioError when reading fails half-way."""
        ...

    def bookmark(self) -> Bookmark:
        """The position of the next row; `PreferenceSource.open` goes on there."""
        ...


class PreferenceSource(Protocol):
    """A data set as a source of rows. `fingerprint` is the same for as long as its rows are."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def columns(self) -> Sequence[str]: ...

    @property
    def folder(self) -> ImageFolder:
        """The folder of the image files that rows name."""
        ...

    def open(self, bookmark: Bookmark | None = None, columns: Collection[str] | None = None, /) -> RowStream:
        """Open the rows from a bookmark on. `columns`: those that are needed, None for all; rows may have more."""
        ...


def open_rows(
    source: PreferenceSource, reader: PreferenceReader, bookmark: Bookmark | None, num_rows: int
) -> RowStream:
    """Open the columns that a reader takes, from a bookmark on, before which there are `num_rows` rows."""
    is_older = bookmark is not None and "position" not in bookmark and not getattr(source, "has_own_bookmarks", False)
    # Earlier versions marked a place in a file by its bytes, or as the library did that read it.
    return source.open({"position": num_rows} if is_older else bookmark, columns_read(reader))


class CountedRows:
    """A RowStream whose bookmark is the number of rows read."""

    def __init__(self, rows: Iterable[Row], position: int) -> None:
        self._rows = rows
        self._position = position

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self._position += 1
            yield row

    def bookmark(self) -> Bookmark:
        return {"position": self._position}


class RowsSource:
    """The PreferenceSource of rows that a function makes, from the first one on each time it is called."""

    def __init__(self, rows: Iterable[Row], *, name: str, columns: Sequence[str], folder: Path | None = None) -> None:
        self.name = name
        self.fingerprint = sha256_hex(name.encode())
        self.columns = columns
        self.folder = ImageFolder(folder)
        self._rows = rows

    def open(self, bookmark: Bookmark | None = None, _columns: Collection[str] | None = None, /) -> RowStream:
        start = 0 if bookmark is None else int(bookmark["position"])
        return CountedRows(islice(iter(self._rows), start, None), start)


def fingerprint_of_files(files: Sequence[Path], root: Path) -> str:
    """A sha256 (hex) over names, sizes, first and last MiB of each, so that gigabytes take milliseconds."""
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.relative_to(root).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(_EDGE_BYTES))
            file.seek(max(0, size - _EDGE_BYTES))
            digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()

"""Sources of JSON files of labeling tools, record by record, since their records do not fit a table of columns."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dmpo_app.errors import SetupError, StudioError
from dmpo_app.exchange.readers.annotation_tools import ArgillaReader, LabelStudioReader
from dmpo_app.exchange.readers.pair import ImageFolder
from dmpo_app.exchange.readers.reader import Row
from dmpo_app.exchange.readers.source import Bookmark, CountedRows, RowStream, fingerprint_of_files
from dmpo_app.exchange.readers.table_formats import StudioVotesReader

VOTES_FILE = "votes.jsonl"
MAX_JSON_BYTES = 1 << 30
"""The largest .json file, which has to be held in memory; larger data must come as lines."""
_PEEKED_BYTES = 64 << 20
_READERS = (StudioVotesReader(), LabelStudioReader(), ArgillaReader())


class ToolSource:
    """The PreferenceSource of a .json file that is a list of records, or of a .jsonl file."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.folder = ImageFolder(path.parent)
        self.fingerprint = fingerprint_of_files([path], path.parent)
        self.columns: Sequence[str] = tuple(_first_record(path) or ())
        self._path = path

    def open(self, bookmark: Bookmark | None = None) -> RowStream:
        if self._path.suffix == ".jsonl":
            return _Lines(self._path, 0 if bookmark is None else int(bookmark["offset"]))
        start = 0 if bookmark is None else int(bookmark["position"])
        return CountedRows(islice(_records(self._path), start, None), start)


class _Lines:
    """The RowStream of a .jsonl file; blank lines are no rows."""

    def __init__(self, path: Path, offset: int) -> None:
        self._path = path
        self._offset = offset

    def __iter__(self) -> Iterator[Row]:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                self._offset += len(line)
                if line.strip():
                    yield _parse_line(line)

    def bookmark(self) -> Bookmark:
        return {"offset": self._offset}


def find_tool_file(path: Path) -> Path | None:
    """Find the file of a labeling tool at a path, or in a folder with raw votes of a studio; None: there is none."""
    if path.is_dir():
        path = path / VOTES_FILE
    if path.suffix not in (".json", ".jsonl") or not path.is_file():
        return None
    record = _first_record(path)
    is_known = record is not None and any(reader.detect(record.keys()) for reader in _READERS)
    return path if is_known else None


def _first_record(path: Path) -> dict[str, Any] | None:
    """Read the first record of a file; None where it does not begin with one, which reading it will report."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            start = file.readline() if path.suffix == ".jsonl" else file.read(_PEEKED_BYTES)
        record, _ = json.JSONDecoder().raw_decode(start.lstrip().removeprefix("[").lstrip())
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _records(path: Path) -> list[Row]:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise SetupError(f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB; export it as .jsonl, or in parts")
    try:
        records = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise StudioError(f"{path} is no whole JSON file ({error}); was it cut off?") from error
    return [record if isinstance(record, dict) else {} for record in records]


def _parse_line(line: bytes) -> Row:
    """Parse a line. One that is no record becomes an empty record, which no format takes: it costs its row alone."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


__all__ = ["ToolSource", "find_tool_file"]

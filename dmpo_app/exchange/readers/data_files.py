"""Sources of rows in files: parquet, arrow and JSON, on a disk or opened on the hub. None of them can hold code.

Code of this module runs in a parser process (`dmpo_app.exchange.readers.parsed`).
"""

import io
import json
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from dmpo_app.domain.limits import ParserLimits
from dmpo_app.errors import SetupError, UnreadableFileError
from dmpo_app.exchange.readers.reader import ImageFolder, Row
from dmpo_app.exchange.readers.source import Bookmark, CountedRows, RowStream, fingerprint_of_files
from dmpo_app.parsing.arrow_rows import ArrowRows, ParquetRows, import_pyarrow
from dmpo_app.parsing.json_records import find_problem, read_lines, read_records
from dmpo_app.parsing.limits import check_column_count, check_row_count, keep_going, reading, require_regular_file

KINDS = {".parquet": "parquet", ".jsonl": "JSON lines", ".json": "JSON", ".arrow": "arrow"}
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_SPLIT_NAMES = ("train", "test", "validation", "val")
VOTES_FILE = "votes.jsonl"
_MAX_STATE_BYTES, _UNPACKED_BYTES = 1 << 20, 1 << 20
_PEEKED_RECORDS = 16
"""Records whose keys are the columns of a JSON file; a key that one of them lacks is None in it."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of rows. `open_file` opens it anew; `kind` is one of KINDS; `compression` one of COMPRESSED, or empty."""

    name: str
    kind: str
    num_bytes: int
    open_file: Callable[[], BinaryIO]
    compression: str = ""

    @classmethod
    def from_path(cls, path: Path) -> "DataFile":
        """The file at a path, of the kind that its name ends in. Raises UnreadableFileError, SetupError."""
        suffix, compression = suffixes(path.name)
        if suffix not in KINDS:
            raise SetupError(f"{path} is not of a known kind; expected {', '.join(KINDS)}")
        num_bytes = require_regular_file(path)
        return cls(str(path), KINDS[suffix], num_bytes, lambda: path.open("rb"), compression)


def suffixes(name: str) -> tuple[str, str]:
    """The ending of a name that says its kind, and how it is compressed."""
    path = Path(name)
    compression = COMPRESSED.get(path.suffix.lower(), "")
    return (Path(path.stem) if compression else path).suffix.lower(), compression


class FilesSource:
    """The PreferenceSource of data files, one after the other; the columns are those of the first."""

    def __init__(
        self,
        files: Sequence[DataFile],
        limits: ParserLimits,
        *,
        name: str,
        fingerprint: Callable[[], str],
        folder: ImageFolder,
    ) -> None:
        self.name = name
        self.folder = folder
        self._files = files
        self._limits = limits
        self._fingerprint = fingerprint
        with self._opened(files[0]) as rows:
            self.columns: Sequence[str] = tuple(rows.columns)

    @cached_property
    def fingerprint(self) -> str:
        return self._fingerprint()

    def open(self, bookmark: Bookmark | None = None, columns: Collection[str] | None = None, /) -> RowStream:
        start = 0 if bookmark is None else int(bookmark["position"])
        return CountedRows(self._rows(start, columns), start)

    def _rows(self, skip: int, columns: Collection[str] | None) -> Iterator[Row]:
        num_rows = 0
        num_bytes = sum(file.num_bytes for file in self._files)
        for number, file in enumerate(self._files):
            keep_going()
            try:
                with self._opened(file) as rows:
                    count = rows.num_rows if skip else 0
                    if 0 < count <= skip:
                        skip -= count
                        continue
                    for row in rows.rows(columns, skip):
                        num_rows += 1
                        check_row_count(self.name, num_rows, num_bytes, self._limits)
                        yield row
                    skip = 0
            except UnreadableFileError as error:
                if number or num_rows:
                    raise UnreadableFileError(
                        f"{error} (what was read so far is kept; mend the file, then run the same command again)"
                    ) from error
                raise

    @contextmanager
    def _opened(self, file: DataFile) -> "Iterator[ParquetRows | ArrowRows | _JsonRows]":
        with reading(file.name, file.kind, self._limits), file.open_file() as stream:
            if file.kind == "parquet":
                yield ParquetRows(stream, file.name, file.num_bytes, self._limits)
            elif file.kind == "arrow":
                yield ArrowRows(stream, file.name, file.num_bytes, self._limits)
            else:
                yield _JsonRows(file, self._limits)


class _JsonRows:
    """The rows of a JSON file. A record that is no object is a row without columns, which no format takes."""

    def __init__(self, file: DataFile, limits: ParserLimits) -> None:
        self._file = file
        self._limits = limits
        records = [record for record in islice(self._records(), _PEEKED_RECORDS) if isinstance(record, dict)]
        if not records:
            raise UnreadableFileError(f"{file.name} cannot be read as {file.kind}: {self._problem()}")
        self.columns: Sequence[str] = tuple(dict.fromkeys(key for record in records for key in record))
        check_column_count(file.name, len(self.columns))

    @property
    def num_rows(self) -> int:
        if self._are_lines:
            with self._open() as stream:
                return _count(read_lines(stream, self._file.name, self._limits))
        return _count(self._records())

    def rows(self, columns: Collection[str] | None, skip: int = 0) -> Iterator[dict[str, Any]]:
        """Iterate over the rows from the `skip`-th on, with these columns, those of them that there are."""
        names = [name for name in self.columns if columns is None or name in columns]
        for number, record in enumerate(self._records()):
            if number < skip:
                keep_going()
                continue
            yield {name: record.get(name) for name in names} if isinstance(record, dict) else {}

    @property
    def _are_lines(self) -> bool:
        return self._file.kind == KINDS[".jsonl"]

    def _records(self) -> Iterator[object]:
        with self._open() as stream:
            yield from read_records(stream, self._file.name, self._limits, are_lines=self._are_lines)

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        with self._file.open_file() as stream:
            if not self._file.compression:
                yield stream
                return
            pyarrow = import_pyarrow()
            unpacked = pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), self._file.compression)
            yield io.BufferedReader(unpacked, _UNPACKED_BYTES)

    def _problem(self) -> str:
        if not self._are_lines:
            return "it holds no JSON object; expected a list of objects"
        with self._open() as stream:
            line = next(read_lines(stream, self._file.name, self._limits), None)
        return "it holds no rows" if line is None else f"the first line is no record, {find_problem(line)}"


def _count(items: Iterator[object]) -> int:
    count = 0
    for _ in items:
        count += 1
        keep_going()
    return count


def local_source(path: Path, split: str, limits: ParserLimits) -> FilesSource:
    """Open a file, a folder of files, or a folder of `save_to_disk` as a source. Raises SetupError."""
    root = path if path.is_dir() else path.parent
    paths = _saved_files(path, split) if _is_saved(path) else _data_files(path, split)
    files = [DataFile.from_path(one) for one in paths]
    return FilesSource(
        files,
        limits,
        name=str(path),
        fingerprint=lambda: fingerprint_of_files(paths, root),
        folder=ImageFolder(root),
    )


def _data_files(path: Path, split: str) -> list[Path]:
    """List the data files of the split, all of one kind, by name."""
    if not path.is_dir():
        return [path]
    if (path / VOTES_FILE).is_file():
        return [path / VOTES_FILE]
    data_files = sorted(
        file for file in path.rglob("*") if suffixes(file.name)[0] in KINDS and not _is_hidden(file, path)
    )
    split_files = [file for file in data_files if file.name.startswith(split)]
    if not split_files and any(file.name.startswith(_SPLIT_NAMES) for file in data_files):
        raise SetupError(
            f"no file in {path} begins with {split!r}; there are {', '.join(f.name for f in data_files[:5])}"
        )
    files = split_files or data_files
    endings = sorted({suffixes(file.name)[0] for file in files})
    if len(endings) != 1:
        kinds = f"files of several kinds, {', '.join(endings)}" if endings else "none"
        raise SetupError(f"{path} holds {kinds}; expected .parquet, .jsonl or .json files, or name one file")
    for file in files:
        _require_inside(file, path)
    return files


def _is_hidden(file: Path, folder: Path) -> bool:
    """True for a file in a hidden folder, such as a cache of the hub."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _require_inside(file: Path, folder: Path) -> None:
    """Refuse links that lead out of a folder; the hub's own cache links its snapshots to blobs beside them."""
    target, root = file.resolve(), folder.resolve()
    blobs = [parent.parent / "blobs" for parent in (root, *root.parents) if parent.name == "snapshots"]
    if not any(target.is_relative_to(allowed) for allowed in (root, *blobs)):
        raise UnreadableFileError(f"{file} is a link that leads out of {folder}; name the file itself")


def _is_saved(path: Path) -> bool:
    return path.is_dir() and ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file())


def _saved_files(path: Path, split: str) -> list[Path]:
    """List the files of a folder of `save_to_disk`, which are files of that very folder or refused."""
    folder = path
    if not (path / "state.json").is_file():
        splits = _read_state(path / "dataset_dict.json").get("splits")
        names = [str(name) for name in splits] if isinstance(splits, list) else []
        if split not in names or not (path / split / "state.json").is_file():
            raise SetupError(f"{path} has no split {split!r}; it has {', '.join(sorted(names)) or 'none'}")
        folder = path / split
        _require_inside(folder / "state.json", path)
    entries = _read_state(folder / "state.json").get("_data_files")
    if not isinstance(entries, list) or not entries:
        raise UnreadableFileError(f"{folder / 'state.json'} names no data files; was the folder copied whole?")
    return [_saved_file(folder, entry) for entry in entries]


def _saved_file(folder: Path, entry: object) -> Path:
    name = entry.get("filename") if isinstance(entry, dict) else None
    if not isinstance(name, str) or Path(name).name != name or "\\" in name or Path(name).suffix != ".arrow":
        raise UnreadableFileError(f"{folder / 'state.json'} names {str(name)[:80]!r}, which is no file of its folder")
    path = folder / name
    try:
        is_file = stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        is_file = False
    if not is_file:
        raise UnreadableFileError(f"{folder / 'state.json'} names {name[:80]!r}, and there is no such file beside it")
    return path


def _read_state(path: Path) -> dict[str, Any]:
    num_bytes = require_regular_file(path)
    try:
        state = json.loads(path.read_bytes()) if num_bytes <= _MAX_STATE_BYTES else None
    except (ValueError, RecursionError) as error:
        raise UnreadableFileError(f"{path} cannot be read as JSON ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise UnreadableFileError(f"{path} is no JSON object of at most {_MAX_STATE_BYTES >> 20} MB")
    return state

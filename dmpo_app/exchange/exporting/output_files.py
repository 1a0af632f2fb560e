"""Output files of an export: folders that appear whole or not at all, and files of rows: parquet, lines of JSON, CSV.

A folder has a manifest of its files. The same rows give the same bytes.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

from filelock import FileLock, Timeout

from dmpo_app.domain.prompt import fold
from dmpo_app.errors import BadInputError, BusyError, SetupError
from dmpo_app.exchange.exporting.export_rows import Column, Row
from dmpo_app.io.files import full_disk_reported, make_folder, publish_folder, sha256_of_file
from dmpo_app.labeling.tables import csv_line, safe_cell

GROUP_BYTES = 16 << 20
"""Bytes of images in a row group, which is what a parquet file holds in memory while it is written."""
GROUP_ROWS = 2000


class RowFile(Protocol):
    """A file of rows that is being written. `num_bytes`: its approximate size."""

    num_bytes: int
    num_rows: int

    def add(self, row: Row) -> None: ...

    def close(self) -> None:
        """Write the remaining rows, and close the file."""
        ...


class ParquetFile:
    """A parquet file with row groups of bounded size; images are stored as they are, everything else by zstd.

    Files are cut into pages by content, so that the hub stores again only what changed.
    """

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        pa = import_pyarrow()
        import pyarrow.parquet as pq

        self.num_bytes = self.num_rows = 0
        self._names = [one.name for one in columns]
        self._schema = pa.schema(
            [(one.name, _arrow_type(pa, one)) for one in columns], metadata=_dataset_features(columns)
        )
        self._pyarrow = pa
        column_codecs = {one.name: "NONE" if one.kind == "binary" else "ZSTD" for one in columns if one.kind != "image"}
        image_codecs = {f"{one.name}.bytes": "NONE" for one in columns if one.kind == "image"}
        path_codecs = {f"{one.name}.path": "ZSTD" for one in columns if one.kind == "image"}
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression=column_codecs | image_codecs | path_codecs,
            use_dictionary=[one.name for one in columns if one.kind == "string"],
            write_statistics=[one.name for one in columns if one.kind not in ("binary", "image")],
            use_content_defined_chunking=True,
        )
        self._rows: list[Row] = []
        self._group_bytes = 0

    def add(self, row: Row) -> None:
        self._rows.append(row)
        size = sum(map(_num_bytes, row.values()))
        self._group_bytes += size
        self.num_bytes += size
        self.num_rows += 1
        if self._group_bytes >= GROUP_BYTES or len(self._rows) >= GROUP_ROWS:
            self._write_group()

    def close(self) -> None:
        self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        if self._rows:
            columns = {name: [row[name] for row in self._rows] for name in self._names}
            self._writer.write_table(self._pyarrow.table(columns, schema=self._schema), row_group_size=GROUP_ROWS)
            self._rows, self._group_bytes = [], 0


class JsonlFile:
    """A JSONL file: a line for each row."""

    def __init__(self, path: Path) -> None:
        self.num_bytes = self.num_rows = 0
        self._file = path.open("wb")

    def add(self, row: Row) -> None:
        self._write(json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n")
        self.num_rows += 1

    def close(self) -> None:
        self._file.close()

    def _write(self, line: str) -> None:
        self.num_bytes += self._file.write(line.encode())


class CsvFile(JsonlFile):
    """A CSV file: a line for each row, no cell of which a spreadsheet takes for a formula."""

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        super().__init__(path)
        self._names = [one.name for one in columns]
        self._write(csv_line(self._names))

    def add(self, row: Row) -> None:
        cells = _flatten(row)
        self._write(csv_line(_cell(cells[name]) for name in self._names))
        self.num_rows += 1


def open_row_file(path: Path, columns: Sequence[Column]) -> RowFile:
    """Open a file for rows with these columns, of the kind that its suffix says."""
    if path.suffix == ".parquet":
        return ParquetFile(path, columns)
    return CsvFile(path, columns) if path.suffix == ".csv" else JsonlFile(path)


def import_pyarrow() -> ModuleType:
    """Import pyarrow. Raises SetupError that says how to install it."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise SetupError(
            f"parquet files are written with pyarrow, which is not installed ({error}); `pip install pyarrow`"
        ) from error
    module: ModuleType = pa
    return module


def _arrow_type(pa: Any, column: Column) -> Any:
    kinds = {
        "string": pa.string,
        "int64": pa.int64,
        "float64": pa.float64,
        "bool": pa.bool_,
        "binary": pa.binary,
        "timestamp[ns]": lambda: pa.timestamp("ns"),
        "image": lambda: pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    }
    return kinds[column.kind]()


def _dataset_features(columns: Sequence[Column]) -> Mapping[str, str]:
    """The metadata by which `datasets` tells images from structs in a parquet file."""
    features = {
        one.name: {"_type": "Image"} if one.kind == "image" else {"dtype": one.kind, "_type": "Value"}
        for one in columns
    }
    return {"huggingface": json.dumps({"info": {"features": features}})}


def _num_bytes(value: object) -> int:
    if isinstance(value, Mapping):
        return sum(map(_num_bytes, value.values()))
    return len(value) if isinstance(value, bytes | str) else 8


def _flatten(row: Row) -> dict[str, object]:
    cells: dict[str, object] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            cells.update({f"{name}_{part}": inner for part, inner in value.items()})
        else:
            cells[name] = value
    return cells


def _cell(value: object) -> str:
    if isinstance(value, str):
        return safe_cell(value)
    return "" if value is None else str(value)


Split = Literal["train", "test"]
SPLITS: tuple[Split, Split] = ("train", "test")
PAIRS_WITH_IMAGES = 1_000
PAIRS_WITHOUT_IMAGES = 20_000
"""Ids in a range."""
MAX_SHARD_BYTES = 500 << 20
"""A file that reaches this goes on in another one."""


class Shards:
    """Write rows into `folder`/data, in the order of their pairs' ids; `rows` counts them by path below `folder`."""

    def __init__(
        self,
        folder: Path,
        suffix: str,
        *,
        span: int,
        open_file: Callable[[Path], RowFile],
        max_bytes: int = MAX_SHARD_BYTES,
    ) -> None:
        self._folder = folder
        self._suffix = suffix
        self._span = span
        self._open_file = open_file
        self._most_bytes = max_bytes
        self._range = -1
        self._parts: dict[Split, int] = {}
        self._files: dict[Split, tuple[str, RowFile]] = {}
        self.rows: dict[str, int] = {}
        (folder / "data").mkdir()

    def add(self, split: Split, pair_id: int, row: Row) -> None:
        """Add a row. `pair_id`: never smaller than the one before."""
        if pair_id // self._span != self._range:
            self.close()
            self._range, self._parts = pair_id // self._span, {}
        if split not in self._files:
            self._parts[split] = self._parts.get(split, -1) + 1
            name = f"data/{split}-{self._range:06d}-{self._parts[split]:02d}{self._suffix}"
            self._files[split] = (name, self._open_file(self._folder / name))
        _, file = self._files[split]
        file.add(row)
        if file.num_bytes >= self._most_bytes:
            self._close(split)

    def close(self) -> None:
        """Finish the files that are open."""
        for split in list(self._files):
            self._close(split)

    def _close(self, split: Split) -> None:
        name, file = self._files.pop(split)
        file.close()
        self.rows[name] = file.num_rows


def assign_split(prompt: str, share: float) -> Split:
    """Assign a prompt to a split, by its text alone: the same in every export of every home, twins on the same side.

    About `share` of the prompts (0 to 1) are in `test`.
    """
    digest = hashlib.sha256(b"export split:" + fold(prompt).encode("utf-8", "surrogatepass")).digest()
    return "test" if int.from_bytes(digest[:8]) < share * 2**64 else "train"


MANIFEST = "manifest.json"


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Write a folder atomically: it replaces `target` in the end; when anything fails `target` is as it was.

    An earlier export may be there, anything else may not. Raises BadInputError, BusyError when another export writes to
    the same folder, and StorageFullError.
    """
    target = target.expanduser().absolute()
    if target.exists() and not _is_export(target):
        raise BadInputError(f"{target} is there already and is no export; choose a folder that does not exist yet")
    lock = target.with_name(f".{target.name}.lock")
    try:
        with full_disk_reported(target):
            make_folder(target.parent)
            with FileLock(lock, timeout=0):
                _remove_leftovers(target)
                staging = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
                staging.mkdir()
                try:
                    yield staging
                    publish_folder(staging, target, replace=True)
                finally:
                    shutil.rmtree(staging, ignore_errors=True)
                    lock.unlink(missing_ok=True)
    except Timeout as error:
        raise BusyError(
            f"another export is being written to {target}; wait for it, or choose another folder"
        ) from error


def write_manifest(folder: Path, header: Mapping[str, Any], rows: Mapping[str, int]) -> None:
    """Write the manifest: every file of the folder with size, sha256 and rows where it has any. Written last."""
    files = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        entry: dict[str, Any] = {"path": name, "bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
        files.append(entry | ({"rows": rows[name]} if name in rows else {}))
    write_text(folder / MANIFEST, json.dumps({**header, "files": files}, indent=1, ensure_ascii=True) + "\n")


def read_manifest(content: str) -> dict[str, str]:
    """Read a manifest: the files of an export, sha256 by path. Raises BadInputError for what is no manifest."""
    try:
        return {str(file["path"]): str(file["sha256"]) for file in json.loads(content)["files"]}
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"this is no manifest of an export ({type(error).__name__}: {error})") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file: UTF-8 with plain line ends."""
    path.write_text(text, encoding="utf-8", newline="")


def _is_export(target: Path) -> bool:
    return target.is_dir() and ((target / MANIFEST).is_file() or not any(target.iterdir()))


def _remove_leftovers(target: Path) -> None:
    """Remove the files of exports that were killed: the lock is held, so nobody is writing them."""
    for pattern in (f".{target.name}.*.partial", f".{target.name}.*.old"):
        for path in target.parent.glob(pattern):
            shutil.rmtree(path)

"""Rows as files that are the same bytes for the same rows: parquet, lines of JSON, a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from dmpo_app.errors import SetupProblem
from dmpo_app.exchange.exporting.export_rows import Column, Row
from dmpo_app.labeling.tables import csv_line, safe_cell

GROUP_BYTES = 16 << 20
"""Bytes of images in a row group, which is what a parquet file holds in memory while it is written."""
GROUP_ROWS = 2000


class RowFile(Protocol):
    """A file that is being written. `num_bytes` is about what it will weigh."""

    num_bytes: int
    num_rows: int

    def add(self, row: Row) -> None: ...

    def close(self) -> None:
        """Write what is left."""
        ...


class ParquetFile:
    """A parquet file with row groups of bounded size; images are stored as they are, everything else by zstd.

    Files are cut into pages by content, so that the hub stores again only what changed.
    """

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        pa = arrow()
        import pyarrow.parquet as pq

        self.num_bytes = self.num_rows = 0
        self._names = [one.name for one in columns]
        self._schema = pa.schema([(one.name, _type(pa, one)) for one in columns], metadata=_features(columns))
        self._pyarrow = pa
        plain = {one.name: "NONE" if one.kind == "binary" else "ZSTD" for one in columns if one.kind != "image"}
        pictures = {f"{one.name}.bytes": "NONE" for one in columns if one.kind == "image"}
        names = {f"{one.name}.path": "ZSTD" for one in columns if one.kind == "image"}
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression=plain | pictures | names,
            use_dictionary=[one.name for one in columns if one.kind == "string"],
            write_statistics=[one.name for one in columns if one.kind not in ("binary", "image")],
            use_content_defined_chunking=True,
        )
        self._rows: list[Row] = []
        self._group_bytes = 0

    def add(self, row: Row) -> None:
        self._rows.append(row)
        size = sum(map(_weight, row.values()))
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


class LinesFile:
    """A line of JSON for each row."""

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


class TableFile(LinesFile):
    """A line of comma-separated cells for each row, none of which a spreadsheet takes for a formula."""

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        super().__init__(path)
        self._names = [one.name for one in columns]
        self._write(csv_line(self._names))

    def add(self, row: Row) -> None:
        cells = _flat(row)
        self._write(csv_line(_cell(cells[name]) for name in self._names))
        self.num_rows += 1


def row_file(path: Path, columns: Sequence[Column]) -> RowFile:
    """A file for these columns, of the kind that its suffix says."""
    if path.suffix == ".parquet":
        return ParquetFile(path, columns)
    return TableFile(path, columns) if path.suffix == ".csv" else LinesFile(path)


def arrow() -> ModuleType:
    """pyarrow. Raises SetupProblem that says how to install it."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise SetupProblem(
            f"parquet files are written with pyarrow, which is not installed ({error}); "
            "pip install 'dmpo-studio[offline]'"
        ) from error
    module: ModuleType = pa
    return module


def _type(pa: Any, column: Column) -> Any:
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


def _features(columns: Sequence[Column]) -> Mapping[str, str]:
    """What `datasets` looks for in a parquet file to tell pictures from structs."""
    features = {
        one.name: {"_type": "Image"} if one.kind == "image" else {"dtype": one.kind, "_type": "Value"}
        for one in columns
    }
    return {"huggingface": json.dumps({"info": {"features": features}})}


def _weight(value: object) -> int:
    if isinstance(value, Mapping):
        return sum(map(_weight, value.values()))
    return len(value) if isinstance(value, bytes | str) else 8


def _flat(row: Row) -> dict[str, object]:
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

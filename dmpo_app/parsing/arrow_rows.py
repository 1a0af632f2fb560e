"""Parquet and Arrow files as rows: named columns alone, a few rows at a time, sizes checked before anything is read.

A footer says how large things are unpacked, and can lie: a string of 1 MiB in a dictionary, named by 1,000 rows, is
1 GiB in memory and a few bytes in the file. So few rows are decoded at a time, and the process has its limit.
"""

import struct
from collections.abc import Collection, Iterator, Sequence
from types import ModuleType
from typing import Any, BinaryIO

from dmpo_app.domain.limits import ParserLimits
from dmpo_app.errors import SetupError, UnreadableFileError
from dmpo_app.parsing.limits import check_column_count, check_row_count, exceeded, keep_going

ROWS_AT_ONCE = 64
"""Rows that are decoded at a time, whatever their size: 25 MB of Pick-a-Pic's images."""
_MAX_FOOTER_BYTES = 64 << 20
_MAX_FOOTER_STRINGS, _MAX_FOOTER_LISTS = 16 << 20, 1_000_000
_BUFFER_BYTES = 1 << 20
_FILE_MAGIC = b"ARROW1"


def import_pyarrow() -> ModuleType:
    """The library. Raises SetupError where it is not installed."""
    try:
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise SetupError(f"parquet and arrow files need pyarrow ({error}); `pip install pyarrow`") from error
    library: ModuleType = pyarrow
    return library


def _plain_rows(batch: Any) -> list[dict[str, Any]]:
    """The rows of a record batch.

    Times in nanoseconds, as pandas writes them, are made microseconds: for a nanosecond pyarrow would import pandas,
    0.45 s of a process that reads a small file in 0.3 s.
    """
    pyarrow = import_pyarrow()
    columns, is_cast = list(batch.columns), False
    for index, column in enumerate(columns):
        if pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns":
            columns[index] = column.cast(pyarrow.timestamp("us", column.type.tz), safe=False)
            is_cast = True
    if is_cast:
        batch = pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names)
    rows: list[dict[str, Any]] = batch.to_pylist()
    return rows


class ParquetRows:
    """The rows of a parquet file that is open. Raises UnreadableFileError, and the library's errors."""

    def __init__(self, file: BinaryIO, name: str, num_bytes: int, limits: ParserLimits) -> None:
        _check_footer(file, name, num_bytes)
        pyarrow = import_pyarrow()
        self._name = name
        self._limits = limits
        self._parquet = pyarrow.parquet.ParquetFile(
            pyarrow.PythonFile(file, mode="r"),
            buffer_size=_BUFFER_BYTES,
            pre_buffer=False,
            thrift_string_size_limit=_MAX_FOOTER_STRINGS,
            thrift_container_size_limit=_MAX_FOOTER_LISTS,
        )
        self._metadata = self._parquet.metadata
        check_column_count(name, self._metadata.num_columns)
        check_row_count(name, self._metadata.num_rows, num_bytes, limits)
        self.num_rows: int = self._metadata.num_rows
        self.columns: Sequence[str] = tuple(self._parquet.schema_arrow.names)

    def rows(self, columns: Collection[str] | None, skip: int = 0) -> Iterator[dict[str, Any]]:
        """Iterate over the rows from the `skip`-th on, with these columns, those of them that there are."""
        names = [name for name in self.columns if columns is None or name in columns]
        for group in range(self._metadata.num_row_groups):
            count = self._metadata.row_group(group).num_rows
            if skip >= count:
                skip -= count
                continue
            self._check_group(group, names)
            batches = self._parquet.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=names, use_threads=False)
            for batch in batches:
                skipped = min(skip, batch.num_rows)
                skip -= skipped
                yield from _plain_rows(batch.slice(skipped))

    def _check_group(self, group: int, names: Sequence[str]) -> None:
        description = self._metadata.row_group(group)
        total = 0
        for index in range(description.num_columns):
            column = description.column(index)
            path = column.path_in_schema
            if any(path == name or path.startswith(f"{name}.") for name in names):
                total += max(column.total_uncompressed_size, 0)
        if total > self._limits.group_bytes:
            problem = (
                f"has a row group of {total >> 20:,} MB, half of the memory being {self._limits.group_bytes >> 20:,}"
            )
            raise exceeded(self._name, problem, "memory_mb")


def _check_footer(file: BinaryIO, name: str, num_bytes: int) -> None:
    file.seek(max(0, num_bytes - 8))
    tail = file.read(8)
    if tail[4:] == b"PARE":
        raise UnreadableFileError(f"{name} is an encrypted parquet file; export it without encryption")
    if tail[4:] != b"PAR1":
        raise UnreadableFileError(f"{name} cannot be read as parquet: it does not end as one; is the file whole?")
    (length,) = struct.unpack("<I", tail[:4])
    if length > min(num_bytes, _MAX_FOOTER_BYTES):
        raise UnreadableFileError(
            f"{name} cannot be read as parquet: its footer would have {length:,} bytes; is the file whole?"
        )


class ArrowRows:
    """The rows of an Arrow file that is open, a stream or a file of the IPC format."""

    def __init__(self, file: BinaryIO, name: str, num_bytes: int, limits: ParserLimits) -> None:
        self._file = file
        self._name = name
        self._num_bytes = num_bytes
        self._limits = limits
        self._reader = self._open(None)
        self.columns: Sequence[str] = tuple(self._reader.schema.names)
        check_column_count(name, len(self.columns))

    @property
    def num_rows(self) -> int:
        """The number of rows, for which the file is read, without its columns."""
        return sum(batch.num_rows for batch in self._batches(self._open([0])))

    def rows(self, columns: Collection[str] | None, skip: int = 0) -> Iterator[dict[str, Any]]:
        """Iterate over the rows from the `skip`-th on, with these columns, those of them that there are."""
        indices = [index for index, name in enumerate(self.columns) if columns is None or name in columns]
        for batch in self._batches(self._open(indices)):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            batch.validate(full=True)  # offsets that lead elsewhere would read what is there
            for start in range(skip, batch.num_rows, ROWS_AT_ONCE):
                yield from _plain_rows(batch.slice(start, ROWS_AT_ONCE))
            skip = 0

    def _open(self, fields: list[int] | None) -> Any:
        pyarrow = import_pyarrow()
        self._file.seek(0)
        is_file = self._file.read(len(_FILE_MAGIC)) == _FILE_MAGIC
        self._file.seek(0)
        options = pyarrow.ipc.IpcReadOptions(use_threads=False, included_fields=fields)
        open_reader = pyarrow.ipc.open_file if is_file else pyarrow.ipc.open_stream
        return open_reader(pyarrow.PythonFile(self._file, mode="r"), options=options)

    def _batches(self, reader: Any) -> Iterator[Any]:
        is_file = hasattr(reader, "num_record_batches")
        numbers = iter(range(reader.num_record_batches)) if is_file else None
        total = 0
        while True:
            try:
                batch = reader.get_batch(next(numbers)) if numbers is not None else reader.read_next_batch()
            except StopIteration:
                return
            total += batch.num_rows
            keep_going()
            check_row_count(self._name, total, self._num_bytes, self._limits)
            yield batch

"""Prompt files of every format that people send, as rows; run it in a parser process.

| file | prompts are | sets of this kind |
|---|---|---|
| .txt | lines; blank ones and those starting with # are left out | the studio's own |
| .csv, .tsv | a column | PartiPrompts (`Prompt`, `Category`), DrawBench (`Prompts`, `Category`) |
| .jsonl | objects with a field, or strings, a line each | |
| .json | a list of strings or of objects | HPSv2 |
| .parquet | a column | Pick-a-Pic (`caption`), open-image-preferences (`prompt`) |
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from dmpo_app.domain.limits import ParserLimits
from dmpo_app.errors import BadInputError, SetupError
from dmpo_app.parsing.arrow_rows import ParquetRows
from dmpo_app.parsing.limits import reading, require_regular_file

COLUMNS = ("prompt", "prompts", "caption", "text")
"""Names of the column with the prompts, unless one is given: the first of these that exists, in any case."""
CATEGORIES = ("category",)
"""The column whose value becomes a tag."""
MAX_ROWS = 1_000_000
TEXT_FORMATS = ("txt", "csv", "tsv", "jsonl", "json")
FORMATS = (*TEXT_FORMATS, "parquet")


@dataclass(frozen=True, slots=True)
class FileRow:
    """A row of a prompt file, unchecked.

    `number` counts lines or records from 1; `prompt` may be anything, None where there is none.
    """

    number: int
    prompt: object
    category: str = ""


def read_file(path: Path, *, column: str | None = None, limits: ParserLimits | None = None) -> Iterator[FileRow]:
    """Read the rows of a file, by its ending.

    Raises BadInputError for a file of another kind, another encoding or without the column, SetupError when it cannot
    be read at all.
    """
    file_format = path.suffix.lower().removeprefix(".")
    try:
        if path.exists():
            require_regular_file(path, may_be_empty=True)
        if file_format == "parquet":
            yield from _limit_rows(_parquet(path, column, limits or ParserLimits()), path.name)
        else:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                yield from read_stream(stream, file_format, name=path.name, column=column)
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error}") from error


def read_text(text: str, file_format: str, *, name: str = "the file", column: str | None = None) -> Iterator[FileRow]:
    """Read the rows of a file's text. Raises BadInputError as `read_file`."""
    return read_stream(io.StringIO(text.removeprefix("\ufeff"), newline=""), file_format, name=name, column=column)


def read_stream(stream: TextIO, file_format: str, *, name: str, column: str | None) -> Iterator[FileRow]:
    """Read the rows of an open text file, its line ends untranslated. Raises BadInputError as `read_file`."""
    reader = _READERS.get(file_format)
    if reader is None:
        raise BadInputError(f"{name} is of no known kind; its name has to end in one of: {', '.join(FORMATS)}")
    try:
        yield from _limit_rows(reader(stream, name, column), name)
    except UnicodeDecodeError as error:
        raise BadInputError(f"{name} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except csv.Error as error:
        raise BadInputError(f"{name} is not a table that can be read: {error}; is it {file_format}?") from error


def _limit_rows(rows: Iterator[FileRow], name: str) -> Iterator[FileRow]:
    for row in rows:
        if row.number > MAX_ROWS:
            raise BadInputError(f"{name} holds more than {MAX_ROWS:,} rows; import it in parts")
        yield row


def _lines(stream: TextIO, name: str, column: str | None) -> Iterator[FileRow]:
    if column is not None:
        raise BadInputError(f"{name} is plain text, which has no column {column!r}")
    for number, line in enumerate(stream, 1):
        if line.strip() and not line.startswith("#"):
            yield FileRow(number, line)


def _table(delimiter: str) -> Callable[[TextIO, str, str | None], Iterator[FileRow]]:
    def read(stream: TextIO, name: str, column: str | None) -> Iterator[FileRow]:
        rows = csv.DictReader(stream, delimiter=delimiter)
        prompt, category = _find_columns(list(rows.fieldnames or ()), name, column)
        for number, row in enumerate(rows, 1):
            yield FileRow(number, row[prompt], _category(row, category))

    return read


def _json_lines(stream: TextIO, name: str, column: str | None) -> Iterator[FileRow]:
    columns: tuple[str, str | None] | None = None
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield FileRow(number, {})
            continue
        if isinstance(value, dict) and columns is None:
            columns = _find_columns(list(value), name, column)
        yield _row_from_value(number, value, columns)


def _json_list(stream: TextIO, name: str, column: str | None) -> Iterator[FileRow]:
    try:
        values = json.load(stream)
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{name} is not JSON ({type(error).__name__}); one object a line is .jsonl") from error
    if not isinstance(values, list):
        raise BadInputError(f"{name} holds a JSON {type(values).__name__}; expected a list of strings or of objects")
    first = next((value for value in values if isinstance(value, dict)), None)
    columns = None if first is None else _find_columns(list(first), name, column)
    for number, value in enumerate(values, 1):
        yield _row_from_value(number, value, columns)


def _parquet(path: Path, column: str | None, limits: ParserLimits) -> Iterator[FileRow]:
    num_bytes = require_regular_file(path)
    with reading(path.name, "a parquet file", limits), path.open("rb") as file:
        parquet = ParquetRows(file, path.name, num_bytes, limits)
        prompt, category = _find_columns(parquet.columns, path.name, column)
        # Only these columns are read: the field's sets hold gigabytes of images beside them.
        for number, row in enumerate(parquet.rows({prompt} if category is None else {prompt, category}), 1):
            yield FileRow(number, row[prompt], _category(row, category))


def _find_columns(names: Sequence[str], name: str, column: str | None) -> tuple[str, str | None]:
    """Find the column of the prompts, and that of a category if there is one."""
    lowered = {known.strip().lower(): known for known in reversed(names) if known is not None}
    candidates = (column.strip().lower(),) if column is not None else COLUMNS
    prompt = next((lowered[known] for known in candidates if known in lowered), None)
    if prompt is None:
        available = ", ".join(repr(known) for known in names[:20]) or "none"
        problem = f"no column {column!r}" if column is not None else f"none of the columns {', '.join(COLUMNS)}"
        raise BadInputError(f"{name} has {problem}; it has: {available}. Name the one with the prompts (--column)")
    return prompt, next((lowered[known] for known in CATEGORIES if known in lowered), None)


def _category(row: Mapping[str, Any], column: str | None) -> str:
    value = None if column is None else row.get(column)
    return value if isinstance(value, str) else ""


def _row_from_value(number: int, value: object, columns: tuple[str, str | None] | None) -> FileRow:
    if isinstance(value, dict) and columns is not None:
        return FileRow(number, value.get(columns[0]), _category(value, columns[1]))
    return FileRow(number, value)


_READERS: dict[str, Callable[[TextIO, str, str | None], Iterator[FileRow]]] = {
    "txt": _lines,
    "csv": _table(","),
    "tsv": _table("\t"),
    "jsonl": _json_lines,
    "json": _json_list,
}


Fields = tuple[int, object, str]


def file_fields(path: Path, column: str | None, limits: ParserLimits) -> Iterator[Fields]:
    """Read the rows of a file as plain values, which can leave a parser process."""
    return ((row.number, row.prompt, row.category) for row in read_file(path, column=column, limits=limits))


def text_fields(text: str, file_format: str, column: str | None) -> Iterator[Fields]:
    """Read the rows of a text as plain values, which can leave a parser process."""
    return ((row.number, row.prompt, row.category) for row in read_text(text, file_format, column=column))

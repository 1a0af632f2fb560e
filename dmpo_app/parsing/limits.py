"""Limits of strangers' files, and the sentences for a file that exceeds one or cannot be read."""

import errno
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from dmpo_app.domain.limits import ParserLimits
from dmpo_app.errors import BadInputError, StudioError, UnreadableFileError

MAX_NESTING = 64
"""Levels of lists and objects inside one row."""
MAX_CELLS = 100_000
"""Values inside one row, those in its lists and objects included."""
MAX_COLUMNS = 10_000
FREE_ROWS = 10_000
"""So many rows are taken from a file of any size; more only as far as it has a byte for each."""
_MAX_WORDS = 240
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_ALLOCATION = re.compile(r"(alloc|memory).*(fail|bad)|cannot allocate|bad_alloc", re.IGNORECASE)


on_progress: ContextVar[Callable[[], None] | None] = ContextVar("on_progress", default=None)
"""The function of a parser process that tells its parent of progress without rows."""


def keep_going() -> None:
    """Tell whoever waits for rows that they are being sought, as after those of an import that is taken up again.

    The limits of time begin anew then. Nothing happens outside of a parser process.
    """
    tell = on_progress.get()
    if tell is not None:
        tell()


def setting(name: str) -> str:
    """The environment variable of a limit."""
    return f"DMPO_PARSING__{name.upper()}"


def exceeded(name: str, problem: str, limit: str) -> UnreadableFileError:
    """The error for a file that exceeds a limit; `problem` follows its name, `limit` is the setting's."""
    return UnreadableFileError(f"{name} {problem}; {setting(limit)} is the limit, raise it if the file can be trusted")


def out_of_memory(name: str, limits: ParserLimits) -> UnreadableFileError:
    """The error for a file that takes more memory to read than there may be."""
    return exceeded(name, f"takes more than {limits.memory_mb:,} MB of memory to read", "memory_mb")


def clean_words(error: BaseException) -> str:
    """The words of a library's error in one line: printable, bounded, and never empty."""
    words = " ".join(_UNPRINTABLE.sub(" ", str(error)).split())
    words = words if len(words) <= _MAX_WORDS else words[:_MAX_WORDS] + "…"
    return words if words and not isinstance(error, KeyError) else f"{type(error).__name__} {words}".strip()


@contextmanager
def reading(name: str, kind: str, limits: ParserLimits) -> Iterator[None]:
    """Translate whatever a container's library raises inside to UnreadableFileError; errors on purpose pass.

    No list of exceptions: zlib, bz2, lzma, pyarrow and json have dozens, and hostile files find those not listed.
    """
    try:
        yield
    except StudioError:
        raise
    except RecursionError as error:
        raise UnreadableFileError(f"{name} cannot be read as {kind}: it is nested too deeply") from error
    except MemoryError as error:
        raise out_of_memory(name, limits) from error
    except Exception as error:
        if (isinstance(error, OSError) and error.errno == errno.ENOMEM) or _ALLOCATION.search(str(error)):
            raise out_of_memory(name, limits) from error
        raise UnreadableFileError(f"{name} cannot be read as {kind}: {clean_words(error)}") from error


def require_regular_file(path: Path, *, may_be_empty: bool = False) -> int:
    """The size in bytes of a file. Raises UnreadableFileError for a folder, a pipe, a device or a socket."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise UnreadableFileError(f"{path} cannot be opened: {clean_words(error)}") from error
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableFileError(f"{path} is no regular file; folders, pipes, devices and sockets are not read")
    if found.st_size == 0 and not may_be_empty:
        raise UnreadableFileError(f"{path} is empty; was it copied whole?")
    return found.st_size


def check_row_count(name: str, rows: int, num_bytes: int, limits: ParserLimits) -> None:
    """Raise UnreadableFileError for more rows than a file, or a file of that many bytes, may have."""
    if rows > limits.rows:
        raise exceeded(name, f"has more than {limits.rows:,} rows", "rows")
    if rows > max(FREE_ROWS, num_bytes):
        raise UnreadableFileError(f"{name} claims {rows:,} rows in {num_bytes:,} bytes, which no data set has")


def check_column_count(name: str, count: int) -> None:
    """Raise UnreadableFileError for more columns than a file may have."""
    if count > MAX_COLUMNS:
        raise UnreadableFileError(f"{name} has {count:,} columns, at most {MAX_COLUMNS:,}")


def measure(value: object, limits: ParserLimits) -> int:
    """The bytes of a row. Raises BadInputError for one too large, nested too deeply or of too many values."""
    total, cells, level = 0, 0, [value]
    for _ in range(MAX_NESTING):
        inner: list[object] = []
        for one in level:
            if isinstance(one, str | bytes):
                total += len(one)
            elif isinstance(one, dict):
                total += sum(len(key) for key in one if isinstance(key, str))
                inner.extend(one.values())
            elif isinstance(one, list | tuple):
                inner.extend(one)
            elif isinstance(one, int):
                total += one.bit_length() >> 3
        cells += len(inner)
        if cells > MAX_CELLS:
            raise BadInputError(f"holds more than {MAX_CELLS:,} values")
        if total > limits.row_bytes:
            raise BadInputError(f"is larger than {limits.row_mb:,} MB ({setting('row_mb')})")
        if not inner:
            return total + 8 * cells
        level = inner
    raise BadInputError(f"is nested deeper than {MAX_NESTING} levels")

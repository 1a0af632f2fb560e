"""JSON files as their records, one at a time: lines, a list, or values one after the other.

Python's own parser raises RecursionError for what is nested too deeply, where that of pyarrow brings the process down.
A record is never larger than the limit of a row, so that a file of gigabytes takes as much memory as its largest one.
"""

import io
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from dmpo_app.domain.limits import ParserLimits
from dmpo_app.errors import UnreadableFileError
from dmpo_app.parsing.limits import clean_words, exceeded

_CHUNK = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
_IN_NUMBERS = "0123456789.eE+-"
_MAX_BLANK_LINES = 100_000
_BOM = b"\xef\xbb\xbf"


def read_records(file: BinaryIO, name: str, limits: ParserLimits, *, are_lines: bool) -> Iterator[object]:
    """Iterate over the records of an open file, from its beginning.

    `are_lines`: one a line, where one that is no JSON is None and costs itself alone. Raises UnreadableFileError for
    text that is no JSON, not UTF-8 or cut off, and for a record over the limits.
    """
    if are_lines:
        yield from map(_parse_line, read_lines(file, name, limits))
        return
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        yield from _RecordScanner(text, name, limits).records()
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"{name} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    finally:
        text.detach()


def read_lines(file: BinaryIO, name: str, limits: ParserLimits) -> Iterator[bytes]:
    """Iterate over the lines of an open file that are not blank.

    Raises UnreadableFileError for a line over the limit of a row, and for too many blank ones.
    """
    number = num_blank = 0
    while line := file.readline(limits.row_bytes + 1):
        number += 1
        if len(line) > limits.row_bytes:
            raise exceeded(name, f"has a line, number {number:,}, of more than {limits.row_mb:,} MB", "row_mb")
        if not line.strip():
            num_blank += 1
            if num_blank > _MAX_BLANK_LINES:
                raise UnreadableFileError(f"{name} has more than {_MAX_BLANK_LINES:,} blank lines")
            continue
        yield line.removeprefix(_BOM) if number == 1 else line


def find_problem(line: bytes) -> str:
    """The reason why a line is no record, in words."""
    try:
        value = json.loads(line)
    except RecursionError:
        return "it is nested too deeply"
    except ValueError as error:
        return str(error)
    return f"it is a JSON {type(value).__name__}, expected an object"


def _parse_line(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


class _RecordScanner:
    """A window over a text, in which one record after the other is parsed."""

    def __init__(self, text: io.TextIOWrapper, name: str, limits: ParserLimits) -> None:
        self._text = text
        self._name = name
        self._limits = limits
        self._decoder = json.JSONDecoder()
        self._buffer = ""
        self._place = 0
        self._is_whole = False

    def records(self) -> Iterator[object]:
        """Iterate over the records of a list, or over values one after the other."""
        is_list = self._next_mark() == "["
        if is_list:
            self._place += 1
            if self._next_mark() == "]":
                return
        while self._next_mark():
            yield self._record()
            if not is_list:
                continue
            mark = self._next_mark()
            if mark == "]":
                return
            if not mark:
                break
            if mark != ",":
                raise self._broken(f"expected a comma or the end of the list, not {mark!r}")
            self._place += 1
        if is_list:
            raise self._broken("it ends in the middle of its list; was it cut off?")

    def _next_mark(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            space = _SPACE.match(self._buffer, self._place)
            assert space is not None  # it matches nothing, too
            self._place = space.end()
            if self._place < len(self._buffer) or not self._grow(_CHUNK):
                return self._buffer[self._place : self._place + 1]

    def _record(self) -> object:
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._place)
            except RecursionError as error:
                raise self._broken("it is nested too deeply") from error
            except ValueError as error:
                if not isinstance(error, json.JSONDecodeError):  # a number of more digits than Python converts
                    raise self._broken(clean_words(error)) from error
                if not self._grow(max(_CHUNK, len(self._buffer) - self._place)):
                    raise self._broken(f"{error}; was it cut off?") from error
                continue
            may_go_on = self._buffer[end : end + 1] in _IN_NUMBERS  # as 12 does in 123 and in 12.5, also at the end
            length = end - self._place
            if not (may_go_on and self._grow(_CHUNK)):
                self._place += length  # of a buffer that may have let go of what was before
                return value

    def _grow(self, size: int) -> bool:
        """Read on and let go of what was parsed; False at the end."""
        if len(self._buffer) - self._place > self._limits.row_bytes:
            raise exceeded(self._name, f"has a record of more than {self._limits.row_mb:,} MB", "row_mb")
        more = "" if self._is_whole else self._text.read(size)
        self._is_whole = not more
        self._buffer, self._place = self._buffer[self._place :] + more, 0
        return bool(more)

    def _broken(self, problem: str) -> UnreadableFileError:
        return UnreadableFileError(f"{self._name} cannot be read as JSON: {problem}")

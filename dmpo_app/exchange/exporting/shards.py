"""The files of an export: which rows go into which, so that new votes leave the files of old pairs as they are.

A file holds the pairs of one range of ids and one split. So a vote that is withdrawn, or a pair that is judged late,
changes the files of its range and moves nothing from one to the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from dmpo_app.domain.prompt_text import fold
from dmpo_app.exchange.exporting.export_rows import Row
from dmpo_app.exchange.exporting.row_files import RowFile

Split = Literal["train", "test"]
SPLITS: tuple[Split, Split] = ("train", "test")
PAIRS_WITH_IMAGES = 1_000
PAIRS_WITHOUT_IMAGES = 20_000
"""Ids in a range."""
MOST_BYTES = 500 << 20
"""A file that reaches this goes on in another one."""


class Shards:
    """Writes rows into `folder`/data, in the order of their pairs' ids; `rows` counts them by path below `folder`."""

    def __init__(
        self,
        folder: Path,
        suffix: str,
        *,
        span: int,
        open_file: Callable[[Path], RowFile],
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._folder = folder
        self._suffix = suffix
        self._span = span
        self._open_file = open_file
        self._most_bytes = most_bytes
        self._range = -1
        self._parts: dict[Split, int] = {}
        self._files: dict[Split, tuple[str, RowFile]] = {}
        self.rows: dict[str, int] = {}
        (folder / "data").mkdir()

    def add(self, split: Split, pair_id: int, row: Row) -> None:
        """`pair_id`: never smaller than the one before."""
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


def split_of(prompt: str, share: float) -> Split:
    """The split of a prompt, by its text alone: the same in every export of every home, twins on the same side.

    About `share` of the prompts (0 to 1) are in `test`.
    """
    digest = hashlib.sha256(b"export split:" + fold(prompt).encode("utf-8", "surrogatepass")).digest()
    return "test" if int.from_bytes(digest[:8]) < share * 2**64 else "train"

"""Data sets as the studio opens them: parsed in a child process with limits, their rows handed over in batches.

`registry.open_source` opens a data set in the process that calls it. Only tests and this module's functions do, which
run in the child.
"""

import weakref
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dmpo_app.domain.limits import ParserLimits
from dmpo_app.exchange.readers.reader import ImageFolder, Row
from dmpo_app.exchange.readers.registry import is_hub_id, open_source
from dmpo_app.exchange.readers.source import Bookmark, CountedRows, PreferenceSource, RowStream
from dmpo_app.parsing.children import HUB_WRITTEN_BYTES, ParserChild

_HUB_TIMES = 4
"""A request to the hub may take so many times as long as one to the disk."""


def open_dataset(
    dataset: str, *, split: str = "train", config: str | None = None, limits: ParserLimits | None = None
) -> PreferenceSource:
    """Open a file, a folder or a hub id as a source; nothing but its beginning is read. See `registry.open_source`.

    Raises SetupError when there is no such data set, UnreadableFileError for one that cannot be read, is made to do
    harm or exceeds `limits`.
    """
    return _ParsedSource(dataset, split, config, limits or ParserLimits())


class _ParsedSource:
    """The PreferenceSource of a data set that child processes read: a new one each time, but for the first.

    The one that has looked at its beginning waits for the first reading, which then begins 0.3 s sooner.
    """

    def __init__(self, dataset: str, split: str, config: str | None, limits: ParserLimits) -> None:
        self._limits = limits
        self._is_on_hub = is_hub_id(dataset)
        with ExitStack() as stack:
            child = stack.enter_context(self._child(dataset))
            facts = child.call(_describe, dataset, split, config, limits, times=_HUB_TIMES if self._is_on_hub else 1)
            stack.pop_all()
        self._waiting = [child]
        self._end_of_waiting = weakref.finalize(self, child.close)
        self.name: str = facts["name"]
        self.fingerprint: str = facts["fingerprint"]
        self.columns: Sequence[str] = facts["columns"]
        self.folder = ImageFolder(None if facts["root"] is None else Path(facts["root"]))
        self._arguments = (dataset, split, config, facts["revision"], limits)

    def open(self, bookmark: Bookmark | None = None, columns: Collection[str] | None = None, /) -> RowStream:
        start = 0 if bookmark is None else int(bookmark["position"])
        return CountedRows(self._rows(start, None if columns is None else sorted(columns)), start)

    def _rows(self, start: int, columns: Sequence[str] | None) -> Iterator[Row]:
        child = self._waiting.pop() if self._waiting else self._child(self.name)
        self._end_of_waiting.detach()
        with child:
            yield from child.stream(_read, *self._arguments, start, columns)

    def _child(self, name: str) -> ParserChild:
        written = HUB_WRITTEN_BYTES if self._is_on_hub else None
        return ParserChild(name, self._limits, max_written=written, for_hub=self._is_on_hub)


def _describe(dataset: str, split: str, config: str | None, limits: ParserLimits) -> dict[str, Any]:
    source = open_source(dataset, split=split, config=config, limits=limits)
    return {
        "name": source.name,
        "fingerprint": source.fingerprint,
        "columns": tuple(source.columns),
        "root": None if source.folder.root is None else str(source.folder.root),
        "revision": getattr(source, "revision", None),
    }


def _read(
    dataset: str,
    split: str,
    config: str | None,
    revision: str | None,
    limits: ParserLimits,
    start: int,
    columns: Sequence[str] | None,
) -> Iterator[Row]:
    source = open_source(dataset, split=split, config=config, revision=revision, limits=limits)
    yield from source.open({"position": start}, columns)

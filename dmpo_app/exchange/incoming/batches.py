"""Rows of a source as batches of pairs with decoded images. Bounded: by rows, by bytes as they come, by pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from dmpo_app.domain import BaseModelRef, ImportBatch, ImportedImage, ImportedPair
from dmpo_app.exchange.incoming.rows import FoundPair, RowRules, read_row
from dmpo_app.preferences.images import UnusableImage, picture_of, png_of
from dmpo_app.preferences.source import PreferenceSource, RowStream
from dmpo_app.store import Store
from dmpo_app.store.import_ledger import Ledger

BATCH_ROWS = 256
BATCH_BYTES = 16 << 20
_MAX_THREADS = 8
_CHUNK = 16
"""Images a thread takes at a time: handing over a small one costs as much as decoding it."""


@dataclass(frozen=True, slots=True)
class _Looked:
    """An image that could be decoded; `png` None where only that was asked."""

    png: bytes | None
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class _Rows:
    count: int
    found: Sequence[FoundPair]
    left_out: Sequence[tuple[str, str]]
    bookmark: Mapping[str, Any]
    is_last: bool


class Batches:
    """Iterates over the batches from a bookmark on. Images of pairs that are in the store are not looked at again.

    `keeps_images` False: images are decoded, to see that they can be, and let go of.
    """

    def __init__(
        self, store: Store, base: BaseModelRef, source: PreferenceSource, rules: RowRules, *, keeps_images: bool
    ) -> None:
        self._store = store
        self._base = base
        self._source = source
        self._rules = rules
        self._keeps_images = keeps_images

    def read(self, bookmark: Mapping[str, Any] | None, first_row: int) -> Iterator[ImportBatch]:
        """Raises StudioError when reading fails."""
        stream = self._source.open(bookmark)
        threads = min(_MAX_THREADS, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
            for rows in _groups(stream, self._rules, first_row):
                yield self._decoded(rows, pool)

    def _decoded(self, rows: _Rows, pool: ThreadPoolExecutor) -> ImportBatch:
        ledger = Ledger()
        self._store.imports.look_up(self._base, ledger, [found.pair for found in rows.found])
        files: dict[str, bytes] = {}
        for found in rows.found:
            if found.pair.key not in ledger.pairs:
                files[found.pair.image_a.sha256] = found.file_a
                files[found.pair.image_b.sha256] = found.file_b
        names = list(files)
        chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
        looked: dict[str, _Looked | str] = {}
        for chunk, some in zip(
            chunks, pool.map(lambda c: [self._look(files[name]) for name in c], chunks), strict=True
        ):
            looked |= dict(zip(chunk, some, strict=True))
        pairs: list[ImportedPair] = []
        left_out = list(rows.left_out)
        for found in rows.found:
            pair = found.pair
            if pair.key in ledger.pairs:
                pairs.append(pair)
                continue
            a, b = looked[pair.image_a.sha256], looked[pair.image_b.sha256]
            if isinstance(a, str) or isinstance(b, str):
                left_out.append((pair.row, a if isinstance(a, str) else str(b)))
            else:
                pairs.append(replace(pair, image_a=_with(pair.image_a, a), image_b=_with(pair.image_b, b)))
        return ImportBatch(rows.count, pairs, left_out, rows.bookmark, rows.is_last)

    def _look(self, file: bytes) -> _Looked | str:
        """Or why the image cannot be used."""
        try:
            picture = picture_of(file)
        except UnusableImage as problem:
            return problem.reason.value
        return _Looked(png_of(picture) if self._keeps_images else None, picture.width, picture.height)


def _with(image: ImportedImage, looked: _Looked) -> ImportedImage:
    return replace(image, png=looked.png, width=looked.width, height=looked.height)


def _groups(stream: RowStream, rules: RowRules, first_row: int) -> Iterator[_Rows]:
    """The last group may be empty."""
    rows = iter(stream)
    number = first_row
    is_last = False
    while not is_last:
        found: list[FoundPair] = []
        left_out: list[tuple[str, str]] = []
        start, num_bytes = number, 0
        while number - start < BATCH_ROWS and num_bytes < BATCH_BYTES:
            row = next(rows, None)
            if row is None:
                is_last = True
                break
            for one in read_row(rules, row, number):
                if isinstance(one, FoundPair):
                    found.append(one)
                    num_bytes += one.num_bytes
                else:
                    left_out.append(one)
            number += 1
        yield _Rows(number - start, found, left_out, stream.bookmark(), is_last)

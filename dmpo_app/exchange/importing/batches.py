"""Batches of an import: rows of a source as pairs with decoded images, bounded by rows, bytes and pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dmpo_app.domain.data_import import ImportBatch, ImportedImage, ImportedPair
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.exchange.importing.decode_pool import DecodedImage, DecodePool
from dmpo_app.exchange.importing.row_conversion import PairWithFiles, RowRules, read_row
from dmpo_app.exchange.readers.source import PreferenceSource, RowStream
from dmpo_app.store import Store
from dmpo_app.store.imports.import_ledger import DuplicateIndex

BATCH_ROWS = 256
BATCH_BYTES = 16 << 20
_CHUNK = 32
"""Images that a decoder gets at a time: handing over a small one alone costs as much as decoding it."""


@dataclass(frozen=True, slots=True)
class _RowGroup:
    count: int
    pairs: Sequence[PairWithFiles]
    left_out: Sequence[tuple[str, str]]
    bookmark: Mapping[str, Any]
    is_last: bool


class BatchReader:
    """Iterate over the batches of a source from a bookmark on, without decoding images of stored pairs again.

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
        """Read batches from the bookmark on. Raises StudioError when reading fails."""
        stream = self._source.open(bookmark)
        with DecodePool(keeps_images=self._keeps_images) as pool:
            pending_batch: Callable[[], ImportBatch] | None = None
            for rows in _group_rows(stream, self._rules, first_row):
                next_batch = self._decode(rows, pool)
                if pending_batch is not None:
                    yield pending_batch()
                pending_batch = next_batch
            if pending_batch is not None:
                yield pending_batch()

    def _decode(self, rows: _RowGroup, pool: DecodePool) -> Callable[[], ImportBatch]:
        """Decode the images of rows in the background; the returned function waits for them."""
        index = DuplicateIndex()
        self._store.imports.load_duplicates(self._base, index, [found.pair for found in rows.pairs])
        files: dict[str, bytes] = {}
        for found in rows.pairs:
            if found.pair.key not in index.pairs:
                files[found.pair.image_a.sha256] = found.file_a
                files[found.pair.image_b.sha256] = found.file_b
        names = list(files)
        chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
        chunk_futures = [(chunk, pool.decode([files[name] for name in chunk])) for chunk in chunks]

        def batch() -> ImportBatch:
            decoded = {
                name: one for chunk, some in chunk_futures for name, one in zip(chunk, some.result(), strict=True)
            }
            return _make_batch(rows, index, decoded)

        return batch


def _make_batch(rows: _RowGroup, index: DuplicateIndex, decoded: Mapping[str, DecodedImage | str]) -> ImportBatch:
    """Combine rows and decoded images into a batch. `decoded`: of the pairs not stored yet, by their files' hash."""
    pairs: list[ImportedPair] = []
    left_out = list(rows.left_out)
    for pair_with_files in rows.pairs:
        pair = pair_with_files.pair
        if pair.key in index.pairs:
            pairs.append(pair)
            continue
        a, b = decoded[pair.image_a.sha256], decoded[pair.image_b.sha256]
        if isinstance(a, str) or isinstance(b, str):
            left_out.append((pair.row, a if isinstance(a, str) else str(b)))
        else:
            pairs.append(replace(pair, image_a=_with_decoded(pair.image_a, a), image_b=_with_decoded(pair.image_b, b)))
    return ImportBatch(rows.count, pairs, left_out, rows.bookmark, rows.is_last)


def _with_decoded(image: ImportedImage, decoded: DecodedImage) -> ImportedImage:
    return replace(image, png=decoded.png, width=decoded.width, height=decoded.height)


def _group_rows(stream: RowStream, rules: RowRules, first_row: int) -> Iterator[_RowGroup]:
    """Group rows into batches. The last group may be empty."""
    rows = iter(stream)
    number = first_row
    is_last = False
    while not is_last:
        pairs: list[PairWithFiles] = []
        left_out: list[tuple[str, str]] = []
        start, num_bytes = number, 0
        while number - start < BATCH_ROWS and num_bytes < BATCH_BYTES:
            row = next(rows, None)
            if row is None:
                is_last = True
                break
            for one in read_row(rules, row, number):
                if isinstance(one, PairWithFiles):
                    pairs.append(one)
                    num_bytes += one.num_bytes
                else:
                    left_out.append(one)
            number += 1
        yield _RowGroup(number - start, pairs, left_out, stream.bookmark(), is_last)

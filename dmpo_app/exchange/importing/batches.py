"""Rows of a source as batches of pairs with decoded images. Bounded: by rows, by bytes as they come, by pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dmpo_app.domain.data_import import ImportBatch, ImportedImage, ImportedPair
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.exchange.importing.decode_pool import Decoded, DecodePool
from dmpo_app.exchange.importing.row_conversion import FoundPair, RowRules, read_row
from dmpo_app.exchange.readers.source import PreferenceSource, RowStream
from dmpo_app.store import Store
from dmpo_app.store.imports.import_ledger import Ledger

BATCH_ROWS = 256
BATCH_BYTES = 16 << 20
_CHUNK = 32
"""Images that are handed over at a time: doing that with a small one alone costs as much as decoding it."""


@dataclass(frozen=True, slots=True)
class _Rows:
    count: int
    found: Sequence[FoundPair]
    left_out: Sequence[tuple[str, str]]
    bookmark: Mapping[str, Any]
    is_last: bool


class Batches:
    """Iterates over the batches from a bookmark on. Images of pairs that are in the store are not decoded again.

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
        with DecodePool(keeps_images=self._keeps_images) as pool:
            decoding: Callable[[], ImportBatch] | None = None
            for rows in _groups(stream, self._rules, first_row):
                following = self._decode(rows, pool)
                if decoding is not None:
                    yield decoding()
                decoding = following
            if decoding is not None:
                yield decoding()

    def _decode(self, rows: _Rows, pool: DecodePool) -> Callable[[], ImportBatch]:
        """Have the images of rows decoded; what is returned waits for that, so that more can be read meanwhile."""
        ledger = Ledger()
        self._store.imports.look_up(self._base, ledger, [found.pair for found in rows.found])
        files: dict[str, bytes] = {}
        for found in rows.found:
            if found.pair.key not in ledger.pairs:
                files[found.pair.image_a.sha256] = found.file_a
                files[found.pair.image_b.sha256] = found.file_b
        names = list(files)
        chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
        answers = [(chunk, pool.decode([files[name] for name in chunk])) for chunk in chunks]

        def batch() -> ImportBatch:
            decoded = {name: one for chunk, some in answers for name, one in zip(chunk, some.result(), strict=True)}
            return _batch(rows, ledger, decoded)

        return batch


def _batch(rows: _Rows, known: Ledger, decoded: Mapping[str, Decoded | str]) -> ImportBatch:
    """`decoded`: the images of the pairs that are not known, by the hash of their files."""
    pairs: list[ImportedPair] = []
    left_out = list(rows.left_out)
    for found in rows.found:
        pair = found.pair
        if pair.key in known.pairs:
            pairs.append(pair)
            continue
        a, b = decoded[pair.image_a.sha256], decoded[pair.image_b.sha256]
        if isinstance(a, str) or isinstance(b, str):
            left_out.append((pair.row, a if isinstance(a, str) else str(b)))
        else:
            pairs.append(replace(pair, image_a=_with(pair.image_a, a), image_b=_with(pair.image_b, b)))
    return ImportBatch(rows.count, pairs, left_out, rows.bookmark, rows.is_last)


def _with(image: ImportedImage, decoded: Decoded) -> ImportedImage:
    return replace(image, png=decoded.png, width=decoded.width, height=decoded.height)


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

"""Imports: a data set's rows in batches, decoded by a pool of processes, checked, inserted, resumed after a kill."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from dmpo_app.domain import data_import
from dmpo_app.domain.limits import ParserLimits
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.errors import BadInputError, UnreadableFileError
from dmpo_app.exchange.importing import row_conversion
from dmpo_app.exchange.importing.image_decoding import decode_files
from dmpo_app.exchange.readers.reader import MAX_PIXELS, LeftOutReason, PreferenceReader
from dmpo_app.exchange.readers.registry import READERS, detect_reader
from dmpo_app.exchange.readers.source import PreferenceSource, RowStream, open_rows
from dmpo_app.io.files import sha256_hex
from dmpo_app.parsing.children import COMMAND, ParserChild
from dmpo_app.settings import Settings
from dmpo_app.settings.resources import available_cores
from dmpo_app.store import Store
from dmpo_app.store.imports.import_ledger import DuplicateIndex, count_checked

_MAX_PROCESSES = 8
Progress = Callable[[data_import.ImportCounts], None]
AUTO = "auto"
_OWN_FORMAT = "studio-votes"
BATCH_ROWS = 256
BATCH_BYTES = 16 << 20
BATCH_PAIRS = 1024
_CHUNK = 32
"""Images that a decoder gets at a time: handing over a small one alone costs as much as decoding it."""
_IMAGE_BYTES = 4 * MAX_PIXELS
"""The largest PNG of an image, which does not compress."""


@dataclass(slots=True)
class ImportPreview:
    """The preview of an import. `left_out`: (row, reason), as many as were asked for."""

    counts: data_import.ImportCounts = field(default_factory=data_import.ImportCounts)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def get_reader(source: PreferenceSource, format_name: str) -> PreferenceReader:
    """Get the reader by name; `auto`: the one that knows the columns. Raises BadInputError, SetupError."""
    if format_name == AUTO:
        return detect_reader(source.columns, source.name)
    for reader in READERS:
        if reader.name == format_name:
            return reader
    raise BadInputError(f"there is no format {format_name!r}; there are {', '.join(reader.name for reader in READERS)}")


class Importer:
    """The import of one data set into one home.

    `annotator_namespace`: keeps the names of annotators of different sources apart; None: the format's name, so that
    two parts of one data set share its annotators.
    """

    def __init__(
        self,
        store: Store,
        base: BaseModelRef,
        settings: Settings,
        source: PreferenceSource,
        reader: PreferenceReader,
        use: data_import.ImportUse,
        *,
        annotator_namespace: str | None = None,
    ) -> None:
        name = annotator_namespace or reader.name
        self._store = store
        self._base = base
        self._source = source
        self._limits = settings.parsing.limits
        self._rules = row_conversion.RowRules(
            reader,
            source.folder,
            row_conversion.PromptChecker(store, settings),
            row_conversion.SourceAnnotators.from_store(store, base, name, may_be_own=reader.name == _OWN_FORMAT),
            use,
        )
        fingerprint = sha256_hex(source.fingerprint.encode())
        self.spec = data_import.ImportSpec(fingerprint, reader.name, use, name)

    def earlier_state(self) -> data_import.ImportRecord | None:
        """The state that an earlier run of this import, killed or complete, has recorded."""
        return self._store.imports.find(self._base, self.spec)

    def preview(self, on_progress: Progress = lambda _: None, *, max_left_out: int | None = None) -> ImportPreview:
        """Read all that is left to read, decode every image, write nothing. `max_left_out`: of rows listed."""
        earlier_state = self.earlier_state()
        preview, index = ImportPreview(), DuplicateIndex()
        if earlier_state is not None and earlier_state.is_complete:
            return preview
        batches = self._batch_reader(keeps_images=False)
        start = (None, 0) if earlier_state is None else (earlier_state.bookmark, earlier_state.counts.rows)
        for batch in batches.read(*start):
            self._store.imports.load_duplicates(self._base, index, batch.pairs)
            checked_pairs = [(pair, index.check(pair, self.spec.use)) for pair in batch.pairs]
            reasons = Counter(reason for _, reason in batch.left_out)
            preview.counts += count_checked(checked_pairs, self.spec.use)
            preview.counts += data_import.ImportCounts(rows=batch.num_rows, left_out=dict(reasons))
            room = None if max_left_out is None else max(0, max_left_out - len(preview.left_out))
            preview.left_out += batch.left_out[:room]
            on_progress(preview.counts)
        return preview

    def run(
        self, on_progress: Progress = lambda _: None, should_stop: Callable[[], bool] = lambda: False
    ) -> data_import.ImportRecord:
        """Import the remaining rows.

        Batches are stored while the next ones are read; when this ends early, by a kill or because `should_stop` says
        so, the next run goes on after the last batch that was stored.

        Raises StudioError when reading fails, StorageFullError, ConflictError when another process imports the same.
        """
        state = self._store.imports.begin(self._base, self.spec)
        if state.is_complete:
            return state
        batches = self._batch_reader(keeps_images=True)
        writer = _BatchWriter(self._store, self._base, state)
        with ThreadPoolExecutor(1, thread_name_prefix="import") as thread:
            pending: Future[data_import.ImportRecord] | None = None
            for batch in batches.read(state.bookmark, state.counts.rows):
                if pending is not None:
                    on_progress(pending.result().counts)
                pending = thread.submit(writer.write, batch)
                if should_stop():
                    break
            if pending is not None:
                pending.result()
        state = writer.state.result()
        on_progress(state.counts)
        return state

    def _batch_reader(self, *, keeps_images: bool) -> "BatchReader":
        return BatchReader(
            self._store, self._base, self._source, self._rules, limits=self._limits, keeps_images=keeps_images
        )


class _BatchWriter:
    """Write batches one after the other: image files of one while the rows of the one before are written."""

    def __init__(self, store: Store, base: BaseModelRef, state: data_import.ImportRecord) -> None:
        self._imports = store.imports
        self._base = base
        self.state: Future[data_import.ImportRecord] = Future()
        """The state after the last batch that was written."""
        self.state.set_result(state)

    def write(self, batch: data_import.ImportBatch) -> data_import.ImportRecord:
        """Write a batch; returns the state before it."""
        stored = self._imports.store_images(batch)
        previous_state = self.state.result()
        self.state = self._imports.insert_batch(self._base, previous_state, batch, stored)
        return previous_state


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded image; `png` None where it was only checked."""

    png: bytes | None
    width: int
    height: int


class DecodePool:
    """A pool of parser processes that decode, started when first needed. One core is left to reading and storing.

    `keeps_images` False: images are decoded, to see that they can be, and let go of.
    """

    def __init__(self, limits: ParserLimits, *, keeps_images: bool, command: Sequence[str] = COMMAND) -> None:
        count = min(_MAX_PROCESSES, max(1, available_cores() - 1))
        self._keeps_images = keeps_images
        self._start = partial(ParserChild, "the images", limits, command=command)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decode")
        self._idle: SimpleQueue[ParserChild | None] = SimpleQueue()
        for _ in range(count):
            self._idle.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            decoder = self._idle.get()
            if decoder is not None:
                decoder.close()

    def decode(self, files: Sequence[bytes]) -> Future[list[DecodedImage | str]]:
        """Decode files: for each the image, or the reason why it cannot be used."""
        return self._threads.submit(self._decode, files)

    def _decode(self, files: Sequence[bytes]) -> list[DecodedImage | str]:
        results = self._decode_in_process(files)
        if results is not None:
            return results
        if len(files) > 1:  # which of them was it?
            return [self._decode([file])[0] for file in files]
        return [LeftOutReason.CRASHING_IMAGE.value]

    def _decode_in_process(self, files: Sequence[bytes]) -> list[DecodedImage | str] | None:
        """Decode files in one process; None: the process died of it."""
        decoder = self._idle.get()
        try:
            decoder = decoder or self._start()
            results = decoder.call(
                decode_files, files, self._keeps_images, times=len(files), reply_bytes=_IMAGE_BYTES * len(files)
            )
        except UnreadableFileError:
            if decoder is not None:
                decoder.close()
            decoder = None
            return None
        finally:
            self._idle.put(decoder)
        return [one if isinstance(one, str) else DecodedImage(one[2], one[0], one[1]) for one in results]


@dataclass(frozen=True, slots=True)
class _RowGroup:
    count: int
    pairs: Sequence[row_conversion.PairWithFiles]
    left_out: Sequence[tuple[str, str]]
    bookmark: Mapping[str, Any]
    is_last: bool


class BatchReader:
    """Iterate over the batches of a source from a bookmark on, without decoding images of stored pairs again.

    `keeps_images` False: images are decoded, to see that they can be, and let go of.
    """

    def __init__(
        self,
        store: Store,
        base: BaseModelRef,
        source: PreferenceSource,
        rules: row_conversion.RowRules,
        *,
        limits: ParserLimits,
        keeps_images: bool,
    ) -> None:
        self._store = store
        self._base = base
        self._source = source
        self._rules = rules
        self._limits = limits
        self._keeps_images = keeps_images

    def read(self, bookmark: Mapping[str, Any] | None, first_row: int) -> Iterator[data_import.ImportBatch]:
        """Read batches from the bookmark on. Raises StudioError when reading fails."""
        stream = open_rows(self._source, self._rules.reader, bookmark, first_row)
        with DecodePool(self._limits, keeps_images=self._keeps_images) as pool:
            pending_batch: Callable[[], data_import.ImportBatch] | None = None
            for rows in _group_rows(stream, self._rules, first_row):
                next_batch = self._decode(rows, pool)
                if pending_batch is not None:
                    yield pending_batch()
                pending_batch = next_batch
            if pending_batch is not None:
                yield pending_batch()

    def _decode(self, rows: _RowGroup, pool: DecodePool) -> Callable[[], data_import.ImportBatch]:
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

        def batch() -> data_import.ImportBatch:
            decoded = {
                name: one for chunk, some in chunk_futures for name, one in zip(chunk, some.result(), strict=True)
            }
            return _make_batch(rows, index, decoded)

        return batch


def _make_batch(
    rows: _RowGroup, index: DuplicateIndex, decoded: Mapping[str, DecodedImage | str]
) -> data_import.ImportBatch:
    """Combine rows and decoded images into a batch. `decoded`: of the pairs not stored yet, by their files' hash."""
    pairs: list[data_import.ImportedPair] = []
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
    return data_import.ImportBatch(rows.count, pairs, left_out, rows.bookmark, rows.is_last)


def _with_decoded(image: data_import.ImportedImage, decoded: DecodedImage) -> data_import.ImportedImage:
    return replace(image, png=decoded.png, width=decoded.width, height=decoded.height)


def _group_rows(stream: RowStream, rules: row_conversion.RowRules, first_row: int) -> Iterator[_RowGroup]:
    """Group rows into batches. The last group may be empty."""
    rows = iter(stream)
    number = first_row
    is_last = False
    while not is_last:
        pairs: list[row_conversion.PairWithFiles] = []
        left_out: list[tuple[str, str]] = []
        start, num_bytes = number, 0
        while number - start < BATCH_ROWS and num_bytes < BATCH_BYTES and len(pairs) + len(left_out) < BATCH_PAIRS:
            row = next(rows, None)
            if row is None:
                is_last = True
                break
            for one in row_conversion.read_row(rules, row, number):
                if isinstance(one, row_conversion.PairWithFiles):
                    pairs.append(one)
                    num_bytes += one.num_bytes
                else:
                    left_out.append(one)
            number += 1
        yield _RowGroup(number - start, pairs, left_out, stream.bookmark(), is_last)

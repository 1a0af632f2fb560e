"""Import of a data set: a preview that writes nothing, and the import itself, which can be killed anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from dmpo_app.domain.data_import import ImportBatch, ImportCounts, ImportRecord, ImportSpec, ImportUse
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.errors import BadInputError
from dmpo_app.exchange.importing.batches import BatchReader
from dmpo_app.exchange.importing.row_conversion import PromptChecker, RowRules, SourceAnnotators
from dmpo_app.exchange.readers.reader import PreferenceReader
from dmpo_app.exchange.readers.registry import READERS, detect_reader
from dmpo_app.exchange.readers.source import PreferenceSource
from dmpo_app.io import sha256_hex
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.store.imports.import_ledger import DuplicateIndex, count_checked

Progress = Callable[[ImportCounts], None]
AUTO = "auto"
_OWN_FORMAT = "studio-votes"


@dataclass(slots=True)
class ImportPreview:
    """The preview of an import. `left_out`: (row, reason), all of them."""

    counts: ImportCounts = field(default_factory=ImportCounts)
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
        use: ImportUse,
        *,
        annotator_namespace: str | None = None,
    ) -> None:
        name = annotator_namespace or reader.name
        self._store = store
        self._base = base
        self._source = source
        self._rules = RowRules(
            reader,
            source.folder,
            PromptChecker(store, settings),
            SourceAnnotators.from_store(store, base, name, may_be_own=reader.name == _OWN_FORMAT),
            use,
        )
        fingerprint = sha256_hex(source.fingerprint.encode())
        self.spec = ImportSpec(fingerprint, reader.name, use, name)

    def earlier_state(self) -> ImportRecord | None:
        """The state that an earlier run of this import, killed or complete, has recorded."""
        return self._store.imports.find(self._base, self.spec)

    def preview(self, on_progress: Progress = lambda _: None) -> ImportPreview:
        """Read all that is left to read, decode every image, write nothing."""
        earlier_state = self.earlier_state()
        preview, index = ImportPreview(), DuplicateIndex()
        if earlier_state is not None and earlier_state.is_complete:
            return preview
        batches = BatchReader(self._store, self._base, self._source, self._rules, keeps_images=False)
        start = (None, 0) if earlier_state is None else (earlier_state.bookmark, earlier_state.counts.rows)
        for batch in batches.read(*start):
            self._store.imports.load_duplicates(self._base, index, batch.pairs)
            checked_pairs = [(pair, index.check(pair, self.spec.use)) for pair in batch.pairs]
            reasons = Counter(reason for _, reason in batch.left_out)
            preview.counts += count_checked(checked_pairs, self.spec.use)
            preview.counts += ImportCounts(rows=batch.num_rows, left_out=dict(reasons))
            preview.left_out += batch.left_out
            on_progress(preview.counts)
        return preview

    def run(
        self, on_progress: Progress = lambda _: None, should_stop: Callable[[], bool] = lambda: False
    ) -> ImportRecord:
        """Import the remaining rows.

        Batches are stored while the next ones are read; when this ends early, by a kill or because `should_stop` says
        so, the next run goes on after the last batch that was stored.

        Raises StudioError when reading fails, StorageFullError, ConflictError when another process imports the same.
        """
        state = self._store.imports.begin(self._base, self.spec)
        if state.is_complete:
            return state
        batches = BatchReader(self._store, self._base, self._source, self._rules, keeps_images=True)
        writer = _BatchWriter(self._store, self._base, state)
        with ThreadPoolExecutor(1, thread_name_prefix="import") as thread:
            pending: Future[ImportRecord] | None = None
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


class _BatchWriter:
    """Write batches one after the other: image files of one while the rows of the one before are written."""

    def __init__(self, store: Store, base: BaseModelRef, state: ImportRecord) -> None:
        self._imports = store.imports
        self._base = base
        self.state: Future[ImportRecord] = Future()
        """The state after the last batch that was written."""
        self.state.set_result(state)

    def write(self, batch: ImportBatch) -> ImportRecord:
        """Write a batch; returns the state before it."""
        stored = self._imports.store_images(batch)
        previous_state = self.state.result()
        self.state = self._imports.insert_batch(self._base, previous_state, batch, stored)
        return previous_state

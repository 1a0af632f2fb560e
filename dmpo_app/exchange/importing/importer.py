"""Taking a data set into a home: a preview that writes nothing, and the import itself, which can be killed anywhere."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from dmpo_app.domain.data_import import ImportBatch, ImportCounts, ImportSpec, ImportState, ImportUse
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.errors import BadInput
from dmpo_app.exchange.importing.batches import Batches
from dmpo_app.exchange.importing.row_conversion import People, PromptGate, RowRules
from dmpo_app.exchange.readers.reader import PreferenceReader
from dmpo_app.exchange.readers.registry import READERS, detect
from dmpo_app.exchange.readers.source import PreferenceSource
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.store.imports.import_ledger import Ledger, count_of

Progress = Callable[[ImportCounts], None]
AUTO = "auto"
_OWN_FORMAT = "studio-votes"


@dataclass(slots=True)
class Preview:
    """What an import would do. `left_out`: (row, reason), all of them."""

    counts: ImportCounts = field(default_factory=ImportCounts)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def reader_for(source: PreferenceSource, format_name: str) -> PreferenceReader:
    """The reader of that name; `auto`: the one that knows the columns. Raises BadInput, SetupProblem."""
    if format_name == AUTO:
        return detect(source.columns, source.name)
    for reader in READERS:
        if reader.name == format_name:
            return reader
    raise BadInput(f"there is no format {format_name!r}; there are {', '.join(reader.name for reader in READERS)}")


class Importer:
    """One data set and one home. `people`: what annotators' names are kept apart by; None: the format's name, so that
    two parts of one data set share its annotators."""

    def __init__(
        self,
        store: Store,
        base: BaseModelRef,
        settings: Settings,
        source: PreferenceSource,
        reader: PreferenceReader,
        use: ImportUse,
        *,
        people: str | None = None,
    ) -> None:
        name = people or reader.name
        self._store = store
        self._base = base
        self._source = source
        self._rules = RowRules(
            reader,
            source.folder,
            PromptGate(store, settings),
            People.of(store, base, name, may_be_own=reader.name == _OWN_FORMAT),
            use,
        )
        fingerprint = hashlib.sha256(source.fingerprint.encode()).hexdigest()
        self.spec = ImportSpec(fingerprint, reader.name, use, name)

    def before(self) -> ImportState | None:
        """What an earlier run, killed or complete, has recorded of this import."""
        return self._store.imports.find(self._base, self.spec)

    def preview(self, on_progress: Progress = lambda _: None) -> Preview:
        """Read all that is left to read, decode every image, write nothing."""
        before = self.before()
        preview, ledger = Preview(), Ledger()
        if before is not None and before.is_complete:
            return preview
        batches = Batches(self._store, self._base, self._source, self._rules, keeps_images=False)
        start = (None, 0) if before is None else (before.bookmark, before.counts.rows)
        for batch in batches.read(*start):
            self._store.imports.look_up(self._base, ledger, batch.pairs)
            judged = [(pair, ledger.judge(pair, self.spec.use)) for pair in batch.pairs]
            reasons = Counter(reason for _, reason in batch.left_out)
            preview.counts += count_of(judged, self.spec.use)
            preview.counts += ImportCounts(rows=batch.num_rows, left_out=dict(reasons))
            preview.left_out += batch.left_out
            on_progress(preview.counts)
        return preview

    def run(
        self, on_progress: Progress = lambda _: None, should_stop: Callable[[], bool] = lambda: False
    ) -> ImportState:
        """Take in what is left. Batches are stored while the next ones are read; when this ends early, by a kill or
        because `should_stop` says so, the next run goes on after the last batch that was stored.

        Raises StudioError when reading fails, StorageFull, Conflict when another process imports the same.
        """
        state = self._store.imports.begin(self._base, self.spec)
        if state.is_complete:
            return state
        batches = Batches(self._store, self._base, self._source, self._rules, keeps_images=True)
        keeper = _Keeper(self._store, self._base, state)
        with ThreadPoolExecutor(1, thread_name_prefix="import") as thread:
            pending: Future[ImportState] | None = None
            for batch in batches.read(state.bookmark, state.counts.rows):
                if pending is not None:
                    on_progress(pending.result().counts)
                pending = thread.submit(keeper.keep, batch)
                if should_stop():
                    break
            if pending is not None:
                pending.result()
        state = keeper.state.result()
        on_progress(state.counts)
        return state


class _Keeper:
    """Stores batches one after the other: image files of one while the rows of the one before are written."""

    def __init__(self, store: Store, base: BaseModelRef, state: ImportState) -> None:
        self._imports = store.imports
        self._base = base
        self.state: Future[ImportState] = Future()
        """After the last batch that was kept."""
        self.state.set_result(state)

    def keep(self, batch: ImportBatch) -> ImportState:
        """Have a batch stored; returns the state before it."""
        stored = self._imports.store_images(batch)
        before = self.state.result()
        self.state = self._imports.take_in(self._base, before, batch, stored)
        return before

"""Imports through the page: data sets that administrators upload, preview and import into a running studio."""

import logging
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from dmpo_app import errors
from dmpo_app.domain.data_import import ImportCounts, ImportUse
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.exchange.importing.importer import AUTO, Importer, get_reader
from dmpo_app.exchange.readers.parsed import open_dataset
from dmpo_app.exchange.readers.source import PreferenceSource
from dmpo_app.io.files import is_disk_error
from dmpo_app.parsing.children import ParserChild
from dmpo_app.parsing.zip_files import unpack
from dmpo_app.settings import Settings
from dmpo_app.store import Store

_log = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".jsonl", ".json", ".zip")
MAX_SHOWN_ROWS = 20
CONTROLS = r"\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
"""Characters that no file's name may hold, for a class of a regular expression."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_UNPACKED = "unpacked"
_STOPPED = "it was stopped"
_LONGEST_BATCH_SECONDS = 30.0
_ZIP_TIMES = 20
"""Unpacking 16 GiB may take so many times as long as the next rows of a file: five minutes of the processor."""


class ImportPhase(StrEnum):
    """The phase of an import. READING: every row is checked and nothing written."""

    RECEIVING = "receiving"
    READING = "reading"
    PREVIEWED = "previewed"
    TAKING_IN = "taking_in"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ImportJob:
    """The state of one import; `number` tells it from others.

    `counts`: of the preview, then of the import. `left_out`: the first (row, reason). `total_bytes`: of the file, 0
    if unknown; `total_rows`: once they were previewed. `is_resumed`: a part of it was imported before. `problem`: why
    it failed.
    """

    number: int
    name: str
    use: ImportUse
    phase: ImportPhase
    format: str = ""
    total_bytes: int = 0
    num_bytes: int = 0
    total_rows: int = 0
    counts: ImportCounts = field(default_factory=ImportCounts)
    left_out: Sequence[tuple[str, str]] = ()
    is_resumed: bool = False
    problem: str = ""

    @property
    def is_busy(self) -> bool:
        return self.phase in (ImportPhase.RECEIVING, ImportPhase.READING, ImportPhase.TAKING_IN)


class ImportService:
    """Run one import at a time, in a thread of its own; `current` is its state.

    The uploaded file lies in the home until the next import, or `discard`. A studio that ends in the middle of an
    import has lost nothing: the same file, sent again, goes on after the last batch.
    """

    def __init__(self, store: Store, base: BaseModelRef, settings: Settings) -> None:
        self._store = store
        self._base = base
        self._settings = settings
        self._folder = store.home / "imports" / "sent"
        shutil.rmtree(self._folder, ignore_errors=True)  # of a studio that was killed
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._unpacking: ParserChild | None = None
        self._importer: Importer | None = None
        self._number = 0
        self.current: ImportJob | None = None

    @contextmanager
    def receive_file(self, name: str, use: ImportUse, total_bytes: int) -> Iterator[Callable[[bytes], None]]:
        """Receive an upload: yields a function that takes the next bytes; the whole file is then previewed.

        Raises BadInputError, ConflictError when an import is at work, StorageFullError.
        """
        suffix = Path(name).suffix.lower()
        if re.search(f"[{CONTROLS}]", name):
            raise errors.BadInputError("a file's name without control characters is expected")
        if suffix not in SUFFIXES:
            raise errors.BadInputError(f"a file ending in one of {', '.join(SUFFIXES)} is expected")
        job = self._begin(name, use, ImportPhase.RECEIVING, total_bytes=total_bytes)
        folder = self._folder_of(job)
        try:
            folder.mkdir(parents=True)
            path = folder / f"data{suffix}"
            with path.open("xb") as file:
                yield partial(self._receive, job, file)
        except OSError as error:
            self._fail(job, error)
            raise _as_studio_error(error) from error
        except BaseException as error:
            self._fail(
                job, error if isinstance(error, errors.StudioError) else errors.StudioError("it was not received whole")
            )
            raise
        if self._is_current(job):
            stopping = self._stopping
            self._update(job, phase=ImportPhase.READING)
            self._start(job, lambda: self._preview(job, lambda: self._open_source(path, stopping)))

    def read_hub(self, repo_id: str, use: ImportUse) -> None:
        """Begin to preview the split `train` of a data set of the hub.

        Raises BadInputError, ConflictError when an import is at work.
        """
        if not HUB_ID.fullmatch(repo_id):
            raise errors.BadInputError("a data set of the hub is expected, as owner/name")
        job = self._begin(repo_id, use, ImportPhase.READING)

        limits = self._settings.parsing.limits
        self._start(job, lambda: self._preview(job, lambda: open_dataset(repo_id, limits=limits)))

    def start_import(
        self, durable: Callable[[], AbstractContextManager[None]], on_done: Callable[[ImportJob], None]
    ) -> None:
        """Start the import that was previewed. Raises ConflictError when none was.

        `durable`: what is recorded inside is as safe as votes are (`LabelingService.durable_write`). `on_done` is
        called, inside it, when all was imported.
        """
        with self._lock:
            if self.current is None or self.current.phase is not ImportPhase.PREVIEWED or self._importer is None:
                raise errors.ConflictError("there is no preview to take in; send the data first")
            job, importer = self.current, self._importer
            self.current = replace(job, phase=ImportPhase.TAKING_IN, counts=ImportCounts(), left_out=())
        self._start(job, lambda: self._run(job, importer, durable, on_done))

    def discard(self) -> None:
        """Stop the import, and forget it; what was imported so far stays. Raises NotFoundError."""
        if self.current is None:
            raise errors.NotFoundError("there is no import")
        self.close()
        self.current = self._importer = None

    def close(self) -> None:
        """Stop at the next batch, and delete the uploaded file."""
        self._stopping.set()
        if (child := self._unpacking) is not None:
            child.kill()
        if self._thread is not None:
            self._thread.join(_LONGEST_BATCH_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self, name: str, use: ImportUse, phase: ImportPhase, *, total_bytes: int = 0) -> ImportJob:
        with self._lock:
            if self.current is not None and self.current.is_busy:
                raise errors.ConflictError("another import is at work; wait for it, or stop it")
            shutil.rmtree(self._folder, ignore_errors=True)
            self._stopping = threading.Event()
            self._number += 1
            self.current, self._importer = ImportJob(self._number, name, use, phase, total_bytes=total_bytes), None
            return self.current

    def _start(self, job: ImportJob, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - it is logged, and told to whoever asks for `current`
                self._fail(job, error)

        self._thread = threading.Thread(target=guarded, name="import-desk", daemon=True)
        self._thread.start()

    def _receive(self, job: ImportJob, file: BinaryIO, content: bytes) -> None:
        if not self._is_current(job):
            raise errors.ConflictError(_STOPPED)
        file.write(content)
        self._update(job, num_bytes=file.tell())

    def _open_source(self, path: Path, stopping: threading.Event) -> PreferenceSource:
        limits = self._settings.parsing.limits
        if path.suffix != ".zip":
            return open_dataset(str(path), limits=limits)
        with ParserChild(path.name, limits, max_written=limits.unpacked_mb << 20) as child:
            self._unpacking = child
            try:
                if stopping.is_set():  # by a `close` that did not see the child
                    raise errors.StudioError(_STOPPED)
                unpacked = child.call(unpack, path, path.parent / _UNPACKED, limits, times=_ZIP_TIMES)
            finally:
                self._unpacking = None
        return open_dataset(unpacked, limits=limits)

    def _folder_of(self, job: ImportJob) -> Path:
        """The folder of an import's files: of its own, whatever an import before it may still be writing."""
        return self._folder / str(job.number)

    def _preview(self, job: ImportJob, open_file: Callable[[], PreferenceSource]) -> None:
        source = open_file()
        reader = get_reader(source, AUTO)
        importer = Importer(self._store, self._base, self._settings, source, reader, job.use)
        earlier_state = importer.earlier_state()
        rows_before = 0 if earlier_state is None else earlier_state.counts.rows
        self._update(job, format=reader.name, is_resumed=rows_before > 0)
        preview = importer.preview(partial(self._report_progress, job, self._stopping), max_left_out=MAX_SHOWN_ROWS)
        self._importer = importer
        self._update(
            job,
            phase=ImportPhase.PREVIEWED,
            counts=preview.counts,
            total_rows=rows_before + preview.counts.rows,
            left_out=preview.left_out,
        )

    def _run(
        self,
        job: ImportJob,
        importer: Importer,
        durable: Callable[[], AbstractContextManager[None]],
        on_done: Callable[[ImportJob], None],
    ) -> None:
        with durable():
            state = importer.run(lambda counts: self._update(job, counts=counts), self._stopping.is_set)
            if not state.is_complete:
                raise errors.StudioError(_STOPPED)
            on_done(replace(job, counts=state.counts))
        left_out = list(islice(self._store.imports.left_out(state.id), MAX_SHOWN_ROWS))
        shutil.rmtree(self._folder, ignore_errors=True)
        self._update(job, phase=ImportPhase.DONE, counts=state.counts, left_out=left_out)

    def _report_progress(self, job: ImportJob, stopping: threading.Event, counts: ImportCounts) -> None:
        if stopping.is_set():
            raise errors.StudioError(_STOPPED)
        self._update(job, counts=counts)

    def _by_sent_name(self, problem: str, job: ImportJob) -> str:
        """A problem in which the uploaded file has the name that it was sent by."""
        kept_name = f"data{Path(job.name).suffix.lower()}"
        folder = self._folder_of(job)
        problem = problem.replace(f"{folder / _UNPACKED}/", "").replace(str(folder / _UNPACKED), job.name)
        return problem.replace(str(folder / kept_name), job.name).replace(kept_name, job.name)

    def _update(self, job: ImportJob, **changes: Any) -> None:
        """Update `current`, if it is still this import."""
        current = self.current
        if current is not None and current.number == job.number:
            self.current = replace(current, **changes)

    def _is_current(self, job: ImportJob) -> bool:
        return self.current is not None and self.current.number == job.number

    def _fail(self, job: ImportJob, error: BaseException) -> None:
        error = _as_studio_error(error) if isinstance(error, OSError) else error
        if isinstance(error, errors.StudioError):
            problem = self._by_sent_name(str(error), job)
        else:
            problem = errors.UNEXPECTED_MESSAGE
            _log.error("an import failed", exc_info=error)
        self._update(job, phase=ImportPhase.FAILED, problem=problem)


def _as_studio_error(error: OSError) -> Exception:
    """StorageFullError for a full disk, else the error itself."""
    if not is_disk_error(error):
        return error
    return errors.StorageFullError(f"the disk takes no more ({error.strerror}); free some space, then send it again")

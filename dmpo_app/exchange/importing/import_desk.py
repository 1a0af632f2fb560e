"""Data sets that administrators send to a running studio: received, previewed, and taken in when they say so."""

from __future__ import annotations

import logging
import re
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from dmpo_app.domain.data_import import ImportCounts, ImportUse
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.errors import UNEXPECTED, BadInput, Conflict, NotFound, StorageFull, StudioError
from dmpo_app.exchange.importing.importer import AUTO, Importer, reader_for
from dmpo_app.exchange.readers.source import PreferenceSource, open_source
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.store.db.sqlite import is_disk_error

MOST_BYTES = 16 << 30
MOST_FILES = 500_000
_UNREADABLE = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError)
"""What zipfile raises for a damaged file, a kind of compression it does not know, and a password."""


def unpack(archive: Path, folder: Path) -> Path:
    """Extract into `folder`; returns it, or the only folder in it. Raises BadInput, OSError when the disk is full."""
    try:
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if not member.is_dir()]
            total = sum(member.file_size for member in members)
            if len(members) > MOST_FILES or total > min(MOST_BYTES, shutil.disk_usage(archive).free // 2):
                raise BadInput(
                    f"the zip file unpacks to {len(members):,} files and {total >> 20:,} MiB; expected at most "
                    f"{MOST_FILES:,} files, {MOST_BYTES >> 20:,} MiB and half of the free disk"
                )
            for member in members:
                file.extract(member, folder)  # which leaves out `..`, drives and leading slashes, and makes no links
    except _UNREADABLE as error:
        raise BadInput(f"the zip file cannot be read ({error})") from error
    return _innermost(folder)


def _innermost(folder: Path) -> Path:
    inside = [one for one in folder.iterdir() if one.name != "__MACOSX"]
    return _innermost(inside[0]) if len(inside) == 1 and inside[0].is_dir() else folder


SUFFIXES = (".parquet", ".jsonl", ".json", ".zip")
MOST_SHOWN = 20
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_STOPPED = "it was stopped"
_LONGEST_BATCH_SECONDS = 30.0
_log = logging.getLogger(__name__)


class Phase(StrEnum):
    """Where an import stands. READING: every row is looked at and nothing written."""

    RECEIVING = "receiving"
    READING = "reading"
    PREVIEWED = "previewed"
    TAKING_IN = "taking_in"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Import:
    """One import; `number` tells it from others. `counts`: of the preview, then of the import. `left_out`: the first
    (row, reason). `total_bytes`: of the file, 0 if it was not told; `total_rows`: once they were previewed.
    `is_resumed`: a part of it was taken in before. `problem`: why it failed."""

    number: int
    name: str
    use: ImportUse
    phase: Phase
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
        return self.phase in (Phase.RECEIVING, Phase.READING, Phase.TAKING_IN)


class ImportDesk:
    """One import at a time. Work goes on in a thread of its own; `current` says how far it is.

    What was sent lies in the home until the next import, or `discard`. A studio that ends in the middle of taking in
    has lost nothing: the same file, sent again, goes on after the last batch.
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
        self._importer: Importer | None = None
        self._number = 0
        self.current: Import | None = None

    @contextmanager
    def receiving(self, name: str, use: ImportUse, total_bytes: int) -> Iterator[Callable[[bytes], None]]:
        """A function that takes the next bytes of a file; once all were taken, the file is previewed.

        Raises BadInput, Conflict when an import is at work, StorageFull.
        """
        suffix = Path(name).suffix.lower()
        if suffix not in SUFFIXES:
            raise BadInput(f"a file ending in one of {', '.join(SUFFIXES)} is expected")
        begun = self._begin(name, use, Phase.RECEIVING, total_bytes=total_bytes)
        try:
            self._folder.mkdir(parents=True)
            path = self._folder / f"data{suffix}"
            with path.open("xb") as file:
                yield partial(self._receive, begun, file)
        except OSError as error:
            self._fail(begun, error)
            raise _named(error) from error
        except BaseException as error:
            self._fail(begun, error if isinstance(error, StudioError) else StudioError("it was not received whole"))
            raise
        if self._is_current(begun):
            self._note(begun, phase=Phase.READING)
            self._start(begun, lambda: self._preview(begun, lambda: self._source_of(path)))

    def read_hub(self, repo_id: str, use: ImportUse) -> None:
        """Begin to preview the split `train` of a data set of the hub.

        Raises BadInput, Conflict when an import is at work.
        """
        if not _HUB_ID.fullmatch(repo_id):
            raise BadInput("a data set of the hub is expected, as owner/name")
        begun = self._begin(repo_id, use, Phase.READING)

        def source() -> PreferenceSource:
            from dmpo_app.exchange.readers.hugging_face import hub_source  # pandas and more: seconds

            return hub_source(repo_id, "train", None)

        self._start(begun, lambda: self._preview(begun, source))

    def take_in(self, kept: Callable[[], AbstractContextManager[None]], on_done: Callable[[Import], None]) -> None:
        """Take in what was previewed. Raises Conflict when nothing was.

        `kept`: what is recorded inside is as safe as votes are (`LabelingService.kept`). `on_done` is told, inside it,
        when all was taken in.
        """
        with self._lock:
            if self.current is None or self.current.phase is not Phase.PREVIEWED or self._importer is None:
                raise Conflict("there is no preview to take in; send the data first")
            begun, importer = self.current, self._importer
            self.current = replace(begun, phase=Phase.TAKING_IN, counts=ImportCounts(), left_out=())
        self._start(begun, lambda: self._run(begun, importer, kept, on_done))

    def discard(self) -> None:
        """Stop whatever is at work, and forget it; what was taken in so far stays. Raises NotFound."""
        if self.current is None:
            raise NotFound("there is no import")
        self.close()
        self.current = self._importer = None

    def close(self) -> None:
        """Stop at the next batch, and delete what was sent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_LONGEST_BATCH_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self, name: str, use: ImportUse, phase: Phase, *, total_bytes: int = 0) -> Import:
        with self._lock:
            if self.current is not None and self.current.is_busy:
                raise Conflict("another import is at work; wait for it, or stop it")
            shutil.rmtree(self._folder, ignore_errors=True)
            self._stopping = threading.Event()
            self._number += 1
            self.current, self._importer = Import(self._number, name, use, phase, total_bytes=total_bytes), None
            return self.current

    def _start(self, begun: Import, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - it is logged, and told to whoever asks for `current`
                self._fail(begun, error)

        self._thread = threading.Thread(target=guarded, name="import-desk", daemon=True)
        self._thread.start()

    def _receive(self, begun: Import, file: BinaryIO, content: bytes) -> None:
        if not self._is_current(begun):
            raise Conflict(_STOPPED)
        file.write(content)
        self._note(begun, num_bytes=file.tell())

    def _source_of(self, path: Path) -> PreferenceSource:
        return open_source(str(unpack(path, self._folder / "unpacked") if path.suffix == ".zip" else path))

    def _preview(self, begun: Import, open_it: Callable[[], PreferenceSource]) -> None:
        source = open_it()
        reader = reader_for(source, AUTO)
        importer = Importer(self._store, self._base, self._settings, source, reader, begun.use)
        before = importer.before()
        rows_before = 0 if before is None else before.counts.rows
        self._note(begun, format=reader.name, is_resumed=rows_before > 0)
        preview = importer.preview(partial(self._progress, begun, self._stopping))
        self._importer = importer
        self._note(
            begun,
            phase=Phase.PREVIEWED,
            counts=preview.counts,
            total_rows=rows_before + preview.counts.rows,
            left_out=preview.left_out[:MOST_SHOWN],
        )

    def _run(
        self,
        begun: Import,
        importer: Importer,
        kept: Callable[[], AbstractContextManager[None]],
        on_done: Callable[[Import], None],
    ) -> None:
        with kept():
            state = importer.run(lambda counts: self._note(begun, counts=counts), self._stopping.is_set)
            if not state.is_complete:
                raise StudioError(_STOPPED)
            on_done(replace(begun, counts=state.counts))
        left_out = list(islice(self._store.imports.left_out(state.id), MOST_SHOWN))
        shutil.rmtree(self._folder, ignore_errors=True)
        self._note(begun, phase=Phase.DONE, counts=state.counts, left_out=left_out)

    def _progress(self, begun: Import, stopping: threading.Event, counts: ImportCounts) -> None:
        if stopping.is_set():
            raise StudioError(_STOPPED)
        self._note(begun, counts=counts)

    def _note(self, begun: Import, **changes: Any) -> None:
        """Change what `current` says, if that is still about this import."""
        current = self.current
        if current is not None and current.number == begun.number:
            self.current = replace(current, **changes)

    def _is_current(self, begun: Import) -> bool:
        return self.current is not None and self.current.number == begun.number

    def _fail(self, begun: Import, error: BaseException) -> None:
        error = _named(error) if isinstance(error, OSError) else error
        if isinstance(error, StudioError):
            problem = str(error)
        else:
            problem = UNEXPECTED
            _log.error("an import failed", exc_info=error)
        self._note(begun, phase=Phase.FAILED, problem=problem)


def _named(error: OSError) -> Exception:
    """The studio's name for it when the disk is full."""
    if not is_disk_error(error):
        return error
    return StorageFull(f"the disk takes no more ({error.strerror}); free some space, then send it again")

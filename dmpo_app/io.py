"""Durable files and stop signals: what every layer may use."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from dmpo_app.errors import StorageFullError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically: to a temporary name, flushed to disk, renamed.

    A reader finds the old file or the new one, never a part.

    One writer at a time per path. Raises StorageFullError when the disk takes no more; the old file is then still
    there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFullError(f"the disk took no more while {path} was written; free some space") from error
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder; its renames are journaled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; the handlers that were there are back on exit."""
    stop_event = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stop_event.set()

    previous_handlers = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop_event
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)

"""A copy of a live database, of one moment, whatever others write meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dmpo_app.errors import SetupProblem
from dmpo_app.store.db.sqlite import BUSY_TIMEOUT_MS, safe_driver


class DatabaseCopier:
    """Copies one database file through SQLite itself. One thread at a time.

    Nothing but SQLite may open a live database: closing any other handle on it would drop SQLite's locks.
    """

    def __init__(self, path: Path) -> None:
        """Raises SetupProblem when there is no database at `path`."""
        driver = safe_driver()
        if not path.is_file():
            raise SetupProblem(f"there is no database at {path} to make a copy of")
        self._connection: Any = driver.connect(str(path), isolation_level=None, check_same_thread=False)
        self._connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        self._connection.execute("PRAGMA query_only=ON")
        self._copied: int | None = None

    @property
    def changed(self) -> bool:
        """Whether anything was committed since the last copy, by whatever process."""
        return self._copied is None or self._data_version() != self._copied

    def copy(self, target: Path) -> None:
        """Write the database as it is now to `target`, which is replaced. The copy is a plain SQLite file."""
        for leftover in (target, *(target.with_name(target.name + ending) for ending in ("-wal", "-shm", "-journal"))):
            leftover.unlink(missing_ok=True)
        # Read before the copy: what is committed in between is copied now and looked at once more, never missed.
        version = self._data_version()
        copy: Any = safe_driver().connect(str(target), isolation_level=None)
        try:
            copy.execute("PRAGMA journal_mode=OFF")
            copy.execute("PRAGMA synchronous=OFF")
            # In one step: between two steps another process may write, and the copy would begin anew each time.
            self._connection.backup(copy, pages=-1)
        finally:
            copy.close()
        self._copied = version

    def close(self) -> None:
        """Let go of the database. Calling it again does nothing."""
        self._connection.close()

    def _data_version(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])


@contextmanager
def open_copy(path: Path) -> Iterator[Any]:
    """A read-only DBAPI connection to a copy that nobody writes to; it leaves no files beside it."""
    connection: Any = safe_driver().connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        yield connection
    finally:
        connection.close()

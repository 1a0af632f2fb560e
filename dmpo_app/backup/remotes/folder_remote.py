"""A folder as storage: another disk, a network share, a mounted bucket."""

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dmpo_app.backup.remotes.remote import Item
from dmpo_app.errors import BackupUnreachableError, NotFoundError, StorageFullError
from dmpo_app.io import atomic_file, create_exclusively

_PART = ".part-"


class FolderRemote:
    """Files below one folder, which is made by the first write. Every file appears by a rename."""

    shortest_pause = 0.0

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = str(folder)

    def names(self, prefix: str) -> list[str]:
        with self._translate_errors():
            start = self._folder / prefix
            if not start.is_dir():
                # A share that is not mounted looks empty; that it was never written to is told by its parent alone.
                self._folder.parent.stat()
                return []
            paths = (Path(root, name) for root, _, names in os.walk(start) for name in names)
            return sorted(path.relative_to(self._folder).as_posix() for path in paths if _PART not in path.name)

    def read(self, name: str) -> bytes:
        with self._translate_errors(name):
            return (self._folder / name).read_bytes()

    def fetch(self, items: Sequence[tuple[str, Path]]) -> None:
        for name, target in items:
            with self._translate_errors(name):
                shutil.copyfile(self._folder / name, target)

    def put(self, items: Sequence[Item]) -> None:
        for name, content in items:
            with self._translate_errors():
                self._write(name, content)

    def create(self, name: str, content: bytes) -> bool:
        target = self._folder / name
        with self._translate_errors():
            return create_exclusively(target, content, temporary=self._temporary_name(target))

    def delete(self, names: Sequence[str]) -> None:
        with self._translate_errors():
            for name in names:
                (self._folder / name).unlink(missing_ok=True)
            for folder in sorted({(self._folder / name).parent for name in names}, reverse=True):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()

    def _write(self, name: str, content: bytes | Path) -> None:
        target = self._folder / name
        with atomic_file(target, temporary=self._temporary_name(target)) as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                with content.open("rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)

    def _temporary_name(self, target: Path) -> Path:
        """A name in the same folder that `names` does not list."""
        return target.with_name(f"{_PART}{secrets.token_hex(8)}")

    @contextmanager
    def _translate_errors(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if name and self._folder.is_dir():
                raise NotFoundError(f"{name} is not in the storage at {self.url}") from error
            raise BackupUnreachableError(f"the storage at {self.url} is out of reach ({error.strerror})") from error
        except StorageFullError as error:  # of that disk, not of this one
            raise BackupUnreachableError(f"the storage at {self.url} cannot be written to: {error}") from error
        except OSError as error:
            raise BackupUnreachableError(
                f"the storage at {self.url} is out of reach ({error.strerror or error})"
            ) from error

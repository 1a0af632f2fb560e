"""A folder as storage: another disk, a network share, a mounted bucket; or, by fsspec, S3, Google Cloud and others."""

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

from dmpo_app.backup.remotes.remote import Item, without_credentials
from dmpo_app.errors import BackupUnreachableError, NotFoundError, SetupError, StorageFullError
from dmpo_app.io.files import atomic_file, create_exclusively

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


_S3_OPTIONS: dict[str, Any] = {
    # A backup that hangs must be told from one that is slow: botocore's own patience is minutes.
    "config_kwargs": {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2, "mode": "standard"}},
}


class FsspecRemote:
    """Contents below one URL. Credentials come from where the storage's own tools find them."""

    shortest_pause = 0.0

    def __init__(self, url: str) -> None:
        """Raises SetupError when the package for this kind of URL is not installed."""
        self.url = without_credentials(url)
        options = _S3_OPTIONS if url.startswith(("s3://", "s3a://")) else {}
        try:
            # An instance of its own: others may be cached with listings that are old by now.
            self._files, root = fsspec.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **options)
        except (ImportError, ValueError) as error:
            raise SetupError(f"{self.url} cannot be used: {error}") from error
        self._root = str(root).rstrip("/")

    def names(self, prefix: str) -> list[str]:
        with self._translate_errors():
            self._files.invalidate_cache()
            try:
                paths = self._files.find(f"{self._root}/{prefix}".rstrip("/"))
            except FileNotFoundError:
                self._files.ls(self._root.split("/", 1)[0])  # no bucket is no empty folder
                return []
            return sorted(str(path).removeprefix(self._root).lstrip("/") for path in paths)

    def read(self, name: str) -> bytes:
        with self._translate_errors(name):
            content: bytes = self._files.cat_file(self._path(name))
            return content

    def fetch(self, items: Sequence[tuple[str, Path]]) -> None:
        if items:
            with self._translate_errors(items[0][0]):
                self._files.get([self._path(name) for name, _ in items], [str(path) for _, path in items])

    def put(self, items: Sequence[Item]) -> None:
        with self._translate_errors():
            paths = [(name, content) for name, content in items if isinstance(content, Path)]
            if paths:
                self._files.put([str(path) for _, path in paths], [self._path(name) for name, _ in paths])
            for name, content in items:
                if isinstance(content, bytes):
                    self._files.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        with self._translate_errors():
            try:
                self._files.pipe_file(self._path(name), content, mode="create")
            except FileExistsError:
                return False
            return True

    def delete(self, names: Sequence[str]) -> None:
        with self._translate_errors():
            try:
                if names:
                    self._files.rm([self._path(name) for name in names])
            except FileNotFoundError:
                for name in names:
                    if self._files.exists(self._path(name)):
                        self._files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _translate_errors(self, name: str = "") -> Iterator[None]:
        """Translate errors to BackupUnreachableError: fsspec's clients have no common base of errors but Exception."""
        try:
            yield
        except FileNotFoundError as error:
            if name:
                raise NotFoundError(f"{name} is not in the storage at {self.url}") from error
            raise BackupUnreachableError(f"the storage at {self.url} does not exist: {error}") from error
        except Exception as error:
            kind, message = type(error).__name__, without_credentials(str(error))
            raise BackupUnreachableError(
                f"the storage at {self.url} is out of reach ({kind}: {message[:200]})"
            ) from error

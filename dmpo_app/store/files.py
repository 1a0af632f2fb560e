"""Content-addressed files of images, latents and embeddings, named by their sha256.

A file is written under a temporary name, flushed, renamed, and its folder flushed: a name that exists holds the whole
content, whatever happened to the machine. The same content is written once.

With a remote storage a content is there as well before anybody is told its name, and what this disk lacks is fetched
from it and checked: the disk is then a cache.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import secrets
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from dmpo_app.errors import NotFoundError, StorageFullError
from dmpo_app.store.db.sqlite import is_disk_error

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PARALLEL_FLUSHES = 8
_LEFTOVER_SECONDS = 24 * 3600.0

_IMAGES, _LATENTS, _EMBEDS = ("images", ".png"), ("latents", ".safetensors"), ("embeds", ".safetensors")


def sha256_hex(content: bytes) -> str:
    """The sha256 (hex) of a content, which is its name."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The sha256 (hex) of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RemoteFiles(Protocol):
    """A remote storage that holds the same files under the same names, relative to the home; a part of `Remote`."""

    def put(self, items: Sequence[tuple[str, bytes | Path]]) -> None: ...

    def fetch(self, items: Sequence[tuple[str, Path]]) -> None:
        """Download files by name. Raises NotFoundError for a name that is not there."""
        ...

    def delete(self, names: Sequence[str]) -> None: ...


class Files:
    """The files of one home. Safe for any number of threads and processes.

    With a storage `remote` every method may raise what that raises when it is out of reach.
    """

    def __init__(self, home: Path, remote: RemoteFiles | None = None) -> None:
        self._home = home
        self._remote = remote
        self._temporary = home / "tmp"
        self._temporary.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()

    def put_image(self, png: bytes) -> str:
        """Store a PNG; returns its sha256. Raises StorageFullError."""
        return self._put(png, *_IMAGES)

    def put_latents(self, content: bytes) -> str:
        """Store the bytes of a latents file; returns their sha256. Raises StorageFullError."""
        return self._put(content, *_LATENTS)

    def put_embeds(self, content: bytes) -> str:
        """Store the bytes of a prompt embeddings file; returns their sha256. Raises StorageFullError."""
        return self._put(content, *_EMBEDS)

    def put_all(self, images: Sequence[bytes], latents: Sequence[bytes], embeds: Sequence[bytes]) -> None:
        """Store many at once: flushing in parallel lets the disk take several in one go. Raises StorageFullError."""
        with ThreadPoolExecutor(_PARALLEL_FLUSHES, thread_name_prefix="store-files") as pool:
            written = [pool.submit(self.put_image, content) for content in images]
            written += [pool.submit(self.put_latents, content) for content in latents]
            written += [pool.submit(self.put_embeds, content) for content in embeds]
        for future in written:
            future.result()

    def put_images(self, contents: Sequence[bytes]) -> list[str]:
        """Store many PNGs; returns their sha256.

        As durable as one by one, but the disk is told to flush twice in all, where the system can do that. Raises
        StorageFullError.
        """
        if sys.platform != "linux":
            self.put_all(images=contents, latents=(), embeds=())
            return [sha256_hex(content) for content in contents]
        names = [sha256_hex(content) for content in contents]
        new: dict[str, str] = {}
        try:
            for sha256, content in dict(zip(names, contents, strict=True)).items():
                if not self.has_image(sha256):
                    new[sha256] = f"{self._temporary}/{sha256[:16]}-{secrets.token_hex(8)}"
                    _write_new(new[sha256], content)
            if new:
                if self._remote is not None:
                    items = [(self._relative_name(self.image_path(sha256)), Path(file)) for sha256, file in new.items()]
                    self._remote.put(items)
                _flush_file_system(self._temporary)
                for sha256 in {name[:2]: name for name in new}.values():
                    _make_folder(self.image_path(sha256).parent)
                for sha256, file in new.items():
                    os.replace(file, self._path_string(sha256, *_IMAGES))  # noqa: PTH105 - see _text
                _flush_file_system(self._temporary)
        except BaseException as error:
            for file in new.values():
                Path(file).unlink(missing_ok=True)
            if isinstance(error, OSError) and is_disk_error(error):
                raise StorageFullError(
                    f"images could not be written ({error.strerror}); free some space in {self._home}"
                ) from error
            raise
        return names

    def has_image(self, sha256: str) -> bool:
        """True for an image on this disk. Raises NotFoundError for what is no sha256."""
        return os.access(self._path_string(sha256, *_IMAGES), os.F_OK)

    def image_path(self, sha256: str) -> Path:
        """The path of an image, stored or not. Raises NotFoundError for what is no sha256."""
        return self._path(sha256, *_IMAGES)

    def latents_path(self, sha256: str) -> Path:
        """The path of a latents file, stored or not. Raises NotFoundError for what is no sha256."""
        return self._path(sha256, *_LATENTS)

    def embeds_path(self, sha256: str) -> Path:
        """The path of an embeddings file, stored or not. Raises NotFoundError for what is no sha256."""
        return self._path(sha256, *_EMBEDS)

    def read_image(self, sha256: str) -> bytes:
        """Read a PNG. Raises NotFoundError."""
        return self._read(self.image_path(sha256))

    def read_latents(self, sha256: str) -> bytes:
        """Read a latents file. Raises NotFoundError."""
        return self._read(self.latents_path(sha256))

    def read_embeds(self, sha256: str) -> bytes:
        """Read an embeddings file. Raises NotFoundError."""
        return self._read(self.embeds_path(sha256))

    def delete(self, paths: Sequence[Path]) -> None:
        """Delete files by their local paths; missing ones do no harm."""
        for path in paths:
            path.unlink(missing_ok=True)
        if self._remote is not None:
            self._remote.delete([self._relative_name(path) for path in paths])

    def _relative_name(self, path: Path) -> str:
        return path.relative_to(self._home).as_posix()

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            if self._remote is None:
                raise NotFoundError(f"{path.name} is not in the store; was it deleted by hand?") from None
        return self._fetch(path, self._remote)

    def _fetch(self, path: Path, remote: RemoteFiles) -> bytes:
        temporary = self._temporary / f"{path.stem[:16]}-{secrets.token_hex(8)}"
        try:
            remote.fetch([(self._relative_name(path), temporary)])
            content = temporary.read_bytes()
            if sha256_hex(content) != path.stem:
                raise NotFoundError(f"{path.name} is damaged in the storage elsewhere")
            _make_folder(path.parent)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return content

    def _path(self, sha256: str, folder: str, suffix: str) -> Path:
        return Path(self._path_string(sha256, folder, suffix))

    def _path_string(self, sha256: str, folder: str, suffix: str) -> str:
        """The path as a string, where many are needed: making paths took as long as writing small images."""
        if not _SHA256.fullmatch(sha256):
            raise NotFoundError(f"{sha256!r} is not the sha256 of a stored file")
        return f"{self._home}/{folder}/{sha256[:2]}/{sha256}{suffix}"

    def _put(self, content: bytes, folder: str, suffix: str) -> str:
        sha256 = sha256_hex(content)
        path = self._path(sha256, folder, suffix)
        if path.exists():
            return sha256
        temporary = self._temporary / f"{sha256[:16]}-{secrets.token_hex(8)}"
        try:
            _make_folder(path.parent)
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if self._remote is not None:
                self._remote.put([(self._relative_name(path), content)])
            temporary.replace(path)
            flush_folder(path.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if is_disk_error(error):
                raise StorageFullError(
                    f"{path.name} could not be written ({error.strerror}); free some space in {self._home}"
                ) from error
            raise
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return sha256

    def _remove_leftovers(self) -> None:
        """Remove temporary files of processes that died. Those of living ones are seconds old."""
        oldest = time.time() - _LEFTOVER_SECONDS
        for path in self._temporary.iterdir():
            try:
                if path.stat().st_mtime < oldest:
                    path.unlink()
            except FileNotFoundError:
                continue  # its owner was quicker


def _write_new(path: str, content: bytes) -> None:
    """Write a new file, with as few system calls as that takes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    """Create a folder durably: its own entry must survive a power cut as well."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    flush_folder(folder.parent)
    flush_folder(folder.parent.parent)


def _flush_file_system(folder: Path) -> None:
    """Flush everything that was written to the file system of a folder; Linux only. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if library.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    if os.name == "nt":
        return  # Windows cannot open a folder; NTFS journals the rename itself
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

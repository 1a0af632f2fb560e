"""Content-addressed files of images, latents and embeddings, named by their sha256.

A file is written under a temporary name, flushed, renamed, and its folder flushed: a name that exists holds the whole
content, whatever happened to the machine. The same content is written once.

What is read is checked against its name: a file that is missing or does not match it is a DamagedFileError, and what
was there instead is moved to `damaged/`, so that the content can be stored anew. An error of the system that passes
(too many open files, a disk that does not answer) says nothing about the file and is a SystemExhaustedError.

With a remote storage a content is there as well before anybody is told its name, and what this disk lacks is fetched
from it and checked: the disk is then a cache.
"""

import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from dmpo_app.errors import DamagedFileError, NotFoundError, SystemExhaustedError
from dmpo_app.io.files import (
    atomic_file,
    flush_file_system,
    full_disk_reported,
    make_folder,
    move_durably,
    sha256_hex,
    write_all,
)

_log = logging.getLogger(__name__)

DAMAGED_FOLDER = "damaged"
"""The folder of a home where damaged files are moved to."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PARALLEL_FLUSHES = 8
_LEFTOVER_SECONDS = 24 * 3600.0

_IMAGES, _LATENTS, _EMBEDS = ("images", ".png"), ("latents", ".safetensors"), ("embeds", ".safetensors")


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
            with full_disk_reported(self._home / "images"):
                for sha256, content in dict(zip(names, contents, strict=True)).items():
                    if not self.has_image(sha256):
                        new[sha256] = f"{self._temporary}/{sha256[:16]}-{secrets.token_hex(8)}"
                        _write_new(new[sha256], content)
                if new:
                    self._publish_images(new)
        except BaseException:
            for file in new.values():
                Path(file).unlink(missing_ok=True)
            raise
        return names

    def _publish_images(self, new: Mapping[str, str]) -> None:
        """Give written images their names; `new` is their temporary files by sha256."""
        if self._remote is not None:
            self._remote.put([(self._relative_name(self.image_path(name)), Path(file)) for name, file in new.items()])
        flush_file_system(self._temporary)
        for sha256 in {name[:2]: name for name in new}.values():
            make_folder(self.image_path(sha256).parent)
        for sha256, file in new.items():
            os.replace(file, self._path_string(sha256, *_IMAGES))  # noqa: PTH105 - see _path_string
        flush_file_system(self._temporary)

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
        """Read a PNG, checked against its hash. Raises DamagedFileError, SystemExhaustedError."""
        return self._read(self.image_path(sha256))

    def read_latents(self, sha256: str) -> bytes:
        """Read a latents file, checked against its hash. Raises DamagedFileError, SystemExhaustedError."""
        return self._read(self.latents_path(sha256))

    def read_embeds(self, sha256: str) -> bytes:
        """Read an embeddings file, checked against its hash. Raises DamagedFileError, SystemExhaustedError."""
        return self._read(self.embeds_path(sha256))

    def is_image_whole(self, sha256: str) -> bool:
        """True for an image on this disk, or in the storage elsewhere, whose content matches its hash; moves nothing.

        An image that cannot be read for now is not whole. Raises NotFoundError for what is no sha256.
        """
        return self._is_whole(self.image_path(sha256))

    def is_latents_whole(self, sha256: str) -> bool:
        """`is_image_whole` of a latents file."""
        return self._is_whole(self.latents_path(sha256))

    def is_embeds_whole(self, sha256: str) -> bool:
        """`is_image_whole` of an embeddings file."""
        return self._is_whole(self.embeds_path(sha256))

    def _is_whole(self, path: Path) -> bool:
        try:
            content = self._read_unchecked(path)
            if content is not None and sha256_hex(content) == path.stem:
                return True
            if self._remote is not None:
                self._fetch(path, self._remote)
                return True
        except (DamagedFileError, SystemExhaustedError) as error:
            _log.debug("%s is not whole: %s", path, error)
        return False

    def delete(self, paths: Sequence[Path]) -> None:
        """Delete files by their local paths; missing ones do no harm."""
        for path in paths:
            path.unlink(missing_ok=True)
        if self._remote is not None:
            self._remote.delete([self._relative_name(path) for path in paths])

    def _relative_name(self, path: Path) -> str:
        return path.relative_to(self._home).as_posix()

    def _read(self, path: Path) -> bytes:
        for _ in range(2):  # read again before the verdict: a network disk may have given less than there is
            content = self._read_unchecked(path)
            if content is not None and sha256_hex(content) == path.stem:
                return content
        if self._remote is not None:
            return self._fetch(path, self._remote)
        name = self._relative_name(path)
        if content is None:
            raise DamagedFileError(f"{path.name} is not in the store; was it deleted by hand?", path=name)
        self._move_aside(path)
        raise DamagedFileError(f"{name} is damaged: its content does not match its name", path=name)

    def _read_unchecked(self, path: Path) -> bytes | None:
        """The content of a file, None where there is none. Raises SystemExhaustedError."""
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:  # says nothing about the file: too many are open, the disk does not answer
            raise SystemExhaustedError(f"{path} cannot be read for now ({error.strerror})") from error

    def _move_aside(self, path: Path) -> None:
        target = self._home / DAMAGED_FOLDER / self._relative_name(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        except OSError as error:
            _log.warning("the damaged file %s stays where it is: %s", path, error)
        else:
            _log.error("%s does not match its name and was moved to %s", path, target)

    def _fetch(self, path: Path, remote: RemoteFiles) -> bytes:
        name = self._relative_name(path)
        temporary = self._temporary / f"{path.stem[:16]}-{secrets.token_hex(8)}"
        try:
            try:
                remote.fetch([(name, temporary)])
            except NotFoundError as error:
                raise DamagedFileError(f"{path.name} is not in the storage elsewhere ({error})", path=name) from error
            content = temporary.read_bytes()
            if sha256_hex(content) != path.stem:
                raise DamagedFileError(f"{path.name} is damaged in the storage elsewhere", path=name)
            move_durably(temporary, path)
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
        with atomic_file(path, temporary=temporary) as file:
            file.write(content)
            if self._remote is not None:
                self._remote.put([(self._relative_name(path), content)])
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
        write_all(descriptor, content)
    finally:
        os.close(descriptor)

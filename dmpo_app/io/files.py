"""Durable files, their hashes and their permissions."""

import ctypes
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

from dmpo_app.errors import StorageFullError

_FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
_UNFLUSHABLE = frozenset({errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF})
"""Errors of folders that cannot be flushed: not readable, shares of Windows, mounted buckets."""
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK})
"""Errors of file systems without hard links: shares of Windows, mounted buckets."""
_PARALLEL_FLUSHES = 16


_PRIVATE_UMASK = 0o077
_users_umask: ContextVar[int | None] = ContextVar("users_umask", default=None)


def make_files_private() -> Callable[[], None]:
    """Make every file of this process, from now on, its user's alone; returns what undoes that.

    For processes that work on a home. SQLite, libraries and logs make files there too, hence by the umask.
    """
    previous = os.umask(_PRIVATE_UMASK)
    token = _users_umask.set(previous)

    def undo() -> None:
        os.umask(previous)
        _users_umask.reset(token)

    return undo


@contextmanager
def users_umask() -> Iterator[None]:
    """Make files as the user's umask has it, for what a command writes for others: exports, images, reports.

    For one thread at a time: a process has one umask.
    """
    users = _users_umask.get()
    if users is None:
        yield
        return
    previous = os.umask(users)
    try:
        yield
    finally:
        os.umask(previous)


def sha256_hex(content: bytes) -> str:
    """The sha256 (hex) of a content."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The sha256 (hex) of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_disk_error(error: OSError) -> bool:
    """True for an error of the operating system that means a full or failing disk."""
    return error.errno in _FULL_DISK


@contextmanager
def full_disk_reported(path: Path) -> Iterator[None]:
    """Translate the errors of a full or failing disk: StorageFullError instead of OSError; others pass."""
    try:
        yield
    except OSError as error:
        if not is_disk_error(error):
            raise
        raise StorageFullError(
            f"the disk took no more while {path} was written ({error.strerror}); free some space"
        ) from error


@contextmanager
def atomic_file(path: Path, *, temporary: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file that takes its name when the block ends: whole, and durable after it.

    A reader finds the old file or the new one, never a part; after an error or a kill the old one is still there.
    Written as `temporary`, by default a name beside it that this process alone uses, and only for one writer at a time.
    Raises StorageFullError when the disk takes no more.
    """
    temporary = temporary or path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with full_disk_reported(path):
        try:
            make_folder(path.parent)
            with temporary.open("wb") as file:
                yield file
                flush_to_disk(file)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        flush_folder(path.parent)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically and durably: `atomic_file` for a content that is in memory. Raises StorageFullError."""
    with atomic_file(path) as file:
        file.write(content)


def create_exclusively(path: Path, content: bytes, *, mode: int = 0o666, temporary: Path | None = None) -> bool:
    """Create a file, whole and durable, unless it is there: of many that try, one gets True.

    `mode`: its permissions, less those that the umask takes. `temporary`: where it is written first. Raises
    StorageFullError.
    """
    temporary = temporary or path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with full_disk_reported(path):
        make_folder(path.parent)
        try:
            with os.fdopen(os.open(temporary, _NEW_FILE, mode), "wb") as file:
                file.write(content)
                flush_to_disk(file)
            is_created = _publish_exclusively(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        flush_folder(path.parent)
    return is_created


_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def _publish_exclusively(temporary: Path, path: Path) -> bool:
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        return True
    try:  # without links the name is taken by an empty file, which is there for a moment
        os.close(os.open(path, _NEW_FILE, 0o600))
    except FileExistsError:
        return False
    temporary.replace(path)
    return True


def append_durably(path: Path, content: bytes) -> None:
    """Append to a file, durably; after an error it ends where it did before. Raises StorageFullError."""
    is_new = not path.exists()
    with full_disk_reported(path), path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            write_all(file.fileno(), content)
            os.fsync(file.fileno())
            if is_new:
                flush_folder(path.parent)
        except BaseException:
            file.truncate(size)
            raise


def move_durably(source: Path, target: Path) -> None:
    """Move a finished file to its place, durably, over what is there. Raises StorageFullError."""
    with full_disk_reported(target):
        flush_file(source)
        make_folder(target.parent)
        source.replace(target)
        flush_folder(target.parent)


def publish_folder(staging: Path, target: Path, *, replace: bool = False) -> None:
    """Give a finished folder its name, durably: every file in it is flushed first. Raises StorageFullError.

    Only with `replace` over another folder, which is then moved aside and deleted.
    """
    with full_disk_reported(target):
        paths = (staging, *staging.rglob("*"))
        # All at once in the end: many small files, each flushed as it is written, took ten times as long.
        with ThreadPoolExecutor(_PARALLEL_FLUSHES, thread_name_prefix="flush") as pool:
            list(pool.map(flush_file, (path for path in paths if path.is_file())))
        for folder in (path for path in paths if path.is_dir()):
            flush_folder(folder)
        if replace and target.exists():
            old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
            target.replace(old)
            staging.replace(target)
            shutil.rmtree(old)
        else:
            staging.rename(target)
        flush_folder(target.parent)


def make_folder(folder: Path) -> None:
    """Create a folder, durably: its own entry must survive a power cut as well."""
    missing_folders = list(takewhile(lambda path: not path.is_dir(), (folder, *folder.parents)))
    if missing_folders:
        folder.mkdir(parents=True, exist_ok=True)
    for path in missing_folders:
        flush_folder(path.parent)


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of a content to an open file, with as few system calls as that takes."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def flush_to_disk(file: BinaryIO) -> None:
    """Flush an open file to the disk. Raises OSError."""
    file.flush()
    os.fsync(file.fileno())


def flush_file(path: Path) -> None:
    """Flush a file that has been written and closed. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable, where its file system can do that. Raises OSError."""
    if os.name == "nt":
        return  # Windows cannot open a folder; NTFS journals the rename itself
    try:
        flush_file(folder)
    except OSError as error:
        if error.errno not in _UNFLUSHABLE:
            raise


def flush_file_system(folder: Path) -> None:
    """Flush everything that was written to the file system of a folder; Linux only. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if library.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)

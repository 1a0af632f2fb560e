"""Atomic folders: they appear whole or not at all, with a manifest of their files."""

import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dmpo_app.errors import BadInputError, BusyError
from dmpo_app.io import full_disk_reported, make_folder, publish_folder, sha256_of_file

MANIFEST = "manifest.json"


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Write a folder atomically: it replaces `target` in the end; when anything fails `target` is as it was.

    An earlier export may be there, anything else may not. Raises BadInputError, BusyError when another export writes to
    the same folder, and StorageFullError.
    """
    target = target.expanduser().absolute()
    if target.exists() and not _is_export(target):
        raise BadInputError(f"{target} is there already and is no export; choose a folder that does not exist yet")
    lock = target.with_name(f".{target.name}.lock")
    try:
        with full_disk_reported(target):
            make_folder(target.parent)
            with FileLock(lock, timeout=0):
                _remove_leftovers(target)
                staging = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
                staging.mkdir()
                try:
                    yield staging
                    publish_folder(staging, target, replace=True)
                finally:
                    shutil.rmtree(staging, ignore_errors=True)
                    lock.unlink(missing_ok=True)
    except Timeout as error:
        raise BusyError(
            f"another export is being written to {target}; wait for it, or choose another folder"
        ) from error


def write_manifest(folder: Path, header: Mapping[str, Any], rows: Mapping[str, int]) -> None:
    """Write the manifest: every file of the folder with size, sha256 and rows where it has any. Written last."""
    files = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        entry: dict[str, Any] = {"path": name, "bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
        files.append(entry | ({"rows": rows[name]} if name in rows else {}))
    write_text(folder / MANIFEST, json.dumps({**header, "files": files}, indent=1, ensure_ascii=True) + "\n")


def read_manifest(content: str) -> dict[str, str]:
    """Read a manifest: the files of an export, sha256 by path. Raises BadInputError for what is no manifest."""
    try:
        return {str(file["path"]): str(file["sha256"]) for file in json.loads(content)["files"]}
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"this is no manifest of an export ({type(error).__name__}: {error})") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file: UTF-8 with plain line ends."""
    path.write_text(text, encoding="utf-8", newline="")


def _is_export(target: Path) -> bool:
    return target.is_dir() and ((target / MANIFEST).is_file() or not any(target.iterdir()))


def _remove_leftovers(target: Path) -> None:
    """Remove the files of exports that were killed: the lock is held, so nobody is writing them."""
    for pattern in (f".{target.name}.*.partial", f".{target.name}.*.old"):
        for path in target.parent.glob(pattern):
            shutil.rmtree(path)

"""Zip files of strangers, checked entry by entry and extracted; run it in a parser process."""

import shutil
import stat
import unicodedata
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from dmpo_app.domain.limits import ParserLimits
from dmpo_app.errors import UnreadableFileError
from dmpo_app.io.files import full_disk_reported
from dmpo_app.parsing.limits import exceeded, reading, require_regular_file

_MAX_PART_BYTES, _MAX_PATH_BYTES, _MAX_DEPTH = 255, 1024, 32
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})
_LOCAL_HEADER_BYTES = 30
_ENCRYPTED = 0x1
_KINDS = (0, stat.S_IFREG, stat.S_IFDIR)
_COPIED_BYTES = 1 << 20
_IGNORED = "__MACOSX"


def unpack(archive: Path, folder: Path, limits: ParserLimits) -> str:
    """Extract into `folder`, which is made; returns it, or the innermost folder that alone is in it.

    Nothing is written unless every entry is fit to be. Raises UnreadableFileError, StorageFullError.
    """
    name = archive.name
    require_regular_file(archive)
    with reading(name, "a zip file", limits), zipfile.ZipFile(archive) as file:
        entries = [entry for entry in file.infolist() if not entry.filename.startswith(_IGNORED + "/")]
        _check_size(entries, archive, limits)
        _check_overlaps(entries, name)
        paths = _check_names(entries, name)
        with full_disk_reported(folder):
            folder.mkdir(parents=True)
        for entry, path in zip(entries, paths, strict=True):
            target = folder.joinpath(*path.parts)
            with full_disk_reported(folder):
                (target if entry.is_dir() else target.parent).mkdir(parents=True, exist_ok=True)
            if entry.is_dir():
                continue
            with reading(f"{_shown(entry.filename)} in {name}", "it is packed", limits):
                _extract(file, entry, target)
    return str(_innermost(folder))


def _extract(file: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    with file.open(entry) as source, full_disk_reported(target), target.open("xb") as sink:
        while content := source.read(_COPIED_BYTES):  # no more than the size that was checked
            sink.write(content)


def _check_size(entries: list[zipfile.ZipInfo], archive: Path, limits: ParserLimits) -> None:
    name = archive.name
    if len(entries) > limits.unpacked_files:
        raise exceeded(name, f"holds {len(entries):,} files, at most {limits.unpacked_files:,}", "unpacked_files")
    total = sum(entry.file_size for entry in entries)
    if total > limits.unpacked_mb << 20:
        raise exceeded(name, f"unpacks to {total >> 20:,} MB, at most {limits.unpacked_mb:,}", "unpacked_mb")
    free = shutil.disk_usage(archive.parent).free
    if total > free // 2:
        raise UnreadableFileError(f"{name} unpacks to {total >> 20:,} MB, more than half of the {free >> 20:,} MB free")


def _check_overlaps(entries: list[zipfile.ZipInfo], name: str) -> None:
    """Refuse entries that share bytes: a small file of such entries unpacks to terabytes (Fifield 2019)."""
    end = 0
    for entry in sorted(entries, key=lambda one: one.header_offset):
        if entry.header_offset < end:
            raise UnreadableFileError(f"{name} holds {_shown(entry.filename)} in the bytes of another entry")
        end = entry.header_offset + _LOCAL_HEADER_BYTES + len(entry.orig_filename) + entry.compress_size


def _check_names(entries: list[zipfile.ZipInfo], name: str) -> list[PurePosixPath]:
    """The paths of the entries. Raises UnreadableFileError for one that cannot be, or should not be, written."""
    paths = [_check_entry(entry, name) for entry in entries]
    files: dict[str, str] = {}
    for entry, path in zip(entries, paths, strict=True):
        key = _folded(path)
        if key in files or (not entry.is_dir() and key == "."):
            raise UnreadableFileError(f"{name} holds {_shown(entry.filename)} twice, or in two spellings of one name")
        if not entry.is_dir():
            files[key] = entry.filename
    for entry, path in zip(entries, paths, strict=True):
        parents = (_folded(parent) for parent in path.parents)
        clash = next((files[parent] for parent in parents if parent in files), None)
        if clash is not None or (entry.is_dir() and _folded(path) in files):
            raise UnreadableFileError(f"{name} holds {_shown(clash or entry.filename)} as a file and as a folder")
    return paths


def _check_entry(entry: zipfile.ZipInfo, name: str) -> PurePosixPath:
    shown = f"{name} holds {_shown(entry.filename)}"
    mode = stat.S_IFMT(entry.external_attr >> 16)
    if mode not in _KINDS:
        raise UnreadableFileError(f"{shown}, which is a link or a device; only files and folders are unpacked")
    if entry.flag_bits & _ENCRYPTED:
        raise UnreadableFileError(f"{shown}, which has a password; pack it without one")
    if entry.compress_type not in _METHODS:
        raise UnreadableFileError(
            f"{shown}, packed by method {entry.compress_type}; expected store, deflate, bzip2 or LZMA"
        )
    path = PurePosixPath(entry.filename)
    leads_out = path.is_absolute() or ".." in path.parts or PureWindowsPath(entry.filename).drive
    if leads_out or "\\" in entry.orig_filename:
        raise UnreadableFileError(f"{shown}, which leads out of its folder, or has backslashes in its name")
    if "\0" in entry.orig_filename or any(unicodedata.category(mark) in ("Cc", "Cs") for mark in entry.filename):
        raise UnreadableFileError(f"{shown}, whose name has unprintable characters")
    parts = [part.encode() for part in path.parts]
    if any(len(part) > _MAX_PART_BYTES for part in parts) or sum(map(len, parts)) > _MAX_PATH_BYTES:
        raise UnreadableFileError(f"{shown}, whose name is longer than {_MAX_PART_BYTES} bytes")
    if len(parts) > _MAX_DEPTH:
        raise UnreadableFileError(f"{shown}, more than {_MAX_DEPTH} folders deep")
    return path


def _folded(path: PurePosixPath) -> str:
    """A path as a disk may compare it, that of a Mac or of Windows."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def _shown(filename: str) -> str:
    return repr(filename if len(filename) <= 60 else filename[:60] + "…")


def _innermost(folder: Path) -> Path:
    entries = [one for one in folder.iterdir() if one.name != _IGNORED]
    return _innermost(entries[0]) if len(entries) == 1 and entries[0].is_dir() else folder

"""A zip file of a data set as a folder: bounded, and nothing of it outside the folder."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from dmpo_app.errors import BadInput

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

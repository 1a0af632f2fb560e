"""Mounted file systems: the one that a folder is on, and whether a SQLite database is safe there."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

_NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "drvfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs"}
    | {"nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "quobyte", "smb", "smb2", "smb3", "smbfs"}
    | {"afpfs", "webdav"}
)
"""File systems on which SQLite's write-ahead log is not safe: its locks and its shared memory do not reach the other
side, or not in time. Not among them: overlay, tmpfs and virtiofs, whose pages and locks are those of this kernel; a
container's volume or a virtual machine's root is often one."""
_LOCAL_FUSE = frozenset({"fuseblk", "fuse.fuse-overlayfs", "fuse.lxcfs"})
"""Disks of Windows, and what containers without root stand on: of this machine alone."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted file system. `root`: the folder of it that is mounted at `point`; `options`: its own."""

    id: int
    parent: int
    root: str
    point: str
    file_system: str
    options: frozenset[str]


def read_mounts(path: Path = MOUNTS) -> list[Mount]:
    """Read the kernel's list of mounts (mountinfo), or ask the system where there is none; empty when neither tells."""
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return [] if sys.platform == "linux" else _mounts_elsewhere()
    return [mount for line in lines if (mount := _parse(line)) is not None]


def _parse(line: str) -> Mount | None:
    before, separator, after = line.partition(" - ")
    fields, more = before.split(" "), after.split(" ")
    if not separator or len(fields) < 6 or len(more) < 2 or not (fields[0].isdigit() and fields[1].isdigit()):
        return None
    options = frozenset(more[2].split(",")) if len(more) > 2 else frozenset[str]()
    return Mount(int(fields[0]), int(fields[1]), _plain(fields[3]), _plain(fields[4]), more[0], options)


def _plain(text: str) -> str:
    """A path without the kernel's escapes: a space is written as a backslash and 040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _mounts_elsewhere() -> list[Mount]:
    import psutil

    parts = sorted(psutil.disk_partitions(all=True), key=lambda part: len(part.mountpoint))
    mounts: list[Mount] = []
    for number, part in enumerate(parts, start=1):
        above = [mount.id for mount in mounts if Path(part.mountpoint).is_relative_to(mount.point)]
        options = frozenset(part.opts.split(","))
        mounts.append(Mount(number, max(above, default=0), "/", part.mountpoint, part.fstype.lower(), options))
    return mounts


def mount_of(folder: Path, mounts: list[Mount]) -> Mount | None:
    """The mount that a folder is on, or will be once it is made; links are followed.

    From the root down as the kernel goes: of two mounts on the way, the one met first hides what lies behind it.
    """
    path = Path(os.path.realpath(folder))
    on_the_way = [mount for mount in mounts if path.is_relative_to(mount.point)]
    ids = {mount.id for mount in mounts}
    next_ones = [mount for mount in on_the_way if mount.parent not in ids or mount.parent == mount.id]
    found: Mount | None = None
    while next_ones:
        found = min(next_ones, key=lambda mount: len(mount.point))
        next_ones = [mount for mount in on_the_way if mount.parent == found.id and mount.id != found.id]
    return found


def network_file_system(folder: Path, path: Path = MOUNTS) -> str | None:
    """The name of the network or FUSE file system that a folder is on; None on a local disk, or where nobody knows."""
    mount = mount_of(folder, read_mounts(path))
    if mount is None or mount.file_system in _LOCAL_FUSE:
        return None
    kind = mount.file_system
    is_network = kind.startswith(("fuse", "macfuse", "osxfuse")) or kind in _NETWORK or "remote" in mount.options
    return kind if is_network else None

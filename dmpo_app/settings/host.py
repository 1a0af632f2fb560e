"""The host of a studio: a Space and its disk, the default home, and where the shipped data lies.

The pocket model, its prompts, classifiers and starter pairs lie in `data/` of a checkout, and inside the package where
that was installed from a wheel (`hatch_build.py`).
"""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_ASSETS = _PACKAGE / "assets"
PROJECT_ROOT = _PACKAGE.parent
"""The checkout; the folder of installed packages where `is_installed`."""


def is_installed() -> bool:
    """True for a package installed from a wheel, False in a checkout, editable installs included."""
    return _ASSETS.is_dir()


def shipped_data(name: str) -> Path:
    """The path of shipped data, by its name below `data/`."""
    return (_ASSETS if is_installed() else PROJECT_ROOT / "data") / name


SPACE_DISK = Path("/data")
_REMOTE = ("fuse", "nfs", "cifs", "smb", "9p", "ceph", "lustre")
"""File systems on which SQLite's write-ahead log is not safe: its shared memory does not reach the other side."""


def on_space() -> bool:
    """True on a Hugging Face Space."""
    return "SPACE_ID" in os.environ


def on_zerogpu() -> bool:
    """True on a ZeroGPU Space, by its environment."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def default_home(disk: Path = SPACE_DISK) -> Path:
    """The default home: `data/studio` in a checkout, `dmpo-studio` where one works with an installed package.

    On a Space below `disk`, if that is a writable local disk.
    """
    if on_space() and disk.is_dir() and os.access(disk, os.W_OK) and not is_remote(disk):
        return disk / "studio"
    return local_home()


def local_home() -> Path:
    """The default home on the disk that the program is on."""
    return Path.cwd() / "dmpo-studio" if is_installed() else PROJECT_ROOT / "data" / "studio"


def is_remote(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """True for a folder on a network file system or a bucket, as far as the kernel's list of `mounts` says."""
    try:
        lines = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return False
    folder_path = str(folder.absolute())
    file_systems = {fields[1]: fields[2] for fields in lines if len(fields) > 2}
    containing_mounts = [
        path for path in file_systems if folder_path == path or folder_path.startswith(path.rstrip("/") + "/")
    ]
    return bool(containing_mounts) and file_systems[max(containing_mounts, key=len)].startswith(_REMOTE)

"""The host of a studio: a Space and its disk, the default home, the shipped data, and where libraries may cache.

The pocket model, its prompts, classifiers and starter pairs lie in `data/` of a checkout, and inside the package where
that was installed from a wheel (`hatch_build.py`).
"""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from dmpo_app.settings.mounts import network_file_system

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
    if on_space() and disk.is_dir() and os.access(disk, os.W_OK) and network_file_system(disk) is None:
        return disk / "studio"
    return local_home()


def local_home() -> Path:
    """The default home on the disk that the program is on."""
    return Path.cwd() / "dmpo-studio" if is_installed() else PROJECT_ROOT / "data" / "studio"


_CACHES = {
    "XDG_CACHE_HOME": "xdg",
    "MPLCONFIGDIR": "matplotlib",
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "TRITON_CACHE_DIR": "triton",
}
"""Variables by which libraries are told where to cache, and folders below the home's cache."""
_LEAST_TEMPORARY_BYTES = 256_000_000


def provide_caches(home: Path) -> None:
    """Give libraries folders below the home where their own cannot be written: caches, models, temporary files.

    To be called before they are imported, and for child processes, which inherit it. Variables that are set stay. As
    for a user without a home or with one that is read-only, and a temporary folder that is full or not there.
    """
    cache = home.absolute() / "cache"
    user_home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home raises for a user that nobody knows
    if not user_home.is_absolute():
        os.environ["HOME"] = str(cache)
        user_home = cache
    if not _can_write(user_home / ".cache"):
        models = user_home / ".cache" / "huggingface"  # what lies there can be read, though nothing is added to it
        os.environ.setdefault("HF_HOME", str(models if os.access(models, os.R_OK) else cache / "huggingface"))
        for variable, name in _CACHES.items():
            os.environ.setdefault(variable, str(cache / name))
    if not _has_temporary_folder(home):
        folder = cache / "tmp"
        with suppress(OSError):  # whoever needs the home says what is wrong with it
            folder.mkdir(parents=True, exist_ok=True)
            os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


def _can_write(folder: Path) -> bool:
    """True for a folder that can be written, or be made."""
    # Not by Path.exists, which raises in a folder that one may not look into, as /root for others than root.
    nearest = next(path for path in (folder, *folder.parents) if os.access(path, os.F_OK))
    return os.access(nearest, os.W_OK | os.X_OK)


def _has_temporary_folder(home: Path) -> bool:
    """True where temporary files have room, or at least as much as in the home, or where TMPDIR names it."""
    try:
        free = shutil.disk_usage(tempfile.gettempdir()).free
    except OSError:
        return False
    if "TMPDIR" in os.environ:
        return True
    nearest = next(path for path in (home.absolute(), *home.absolute().parents) if os.access(path, os.F_OK))
    return free >= min(_LEAST_TEMPORARY_BYTES, shutil.disk_usage(nearest).free)

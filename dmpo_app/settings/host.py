"""The host of a studio: a Space and its disk, the default home, and where the shipped data lies.

The pocket model, its prompts, classifiers and starter pairs lie in `data/` of a checkout, and inside the package where
that was installed from a wheel (`hatch_build.py`).
"""

import os
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

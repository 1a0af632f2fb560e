"""Shipped data: the pocket model, its prompts, classifiers and starter pairs.

They lie in `data/` of a checkout, and inside the package where that was installed from a wheel (`hatch_build.py`).
"""

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

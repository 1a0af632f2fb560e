"""The hosting environment: detection of a Space, of its disk and of the mode (cpu, gpu or zerogpu)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dmpo_app.errors import SetupError
from dmpo_app.settings.sections import PROJECT_ROOT

if TYPE_CHECKING:
    from dmpo_app.settings.tree import Settings

Mode = Literal["cpu", "gpu", "zerogpu"]
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
    """The default home: `data/studio` in the project; on a Space below `disk`, if that is a writable local disk."""
    if on_space() and disk.is_dir() and os.access(disk, os.W_OK) and not is_remote(disk):
        return disk / "studio"
    return PROJECT_ROOT / "data" / "studio"


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


def detect_mode(settings: Settings) -> Mode:
    """The mode that is set or, with `auto`, detected: ZeroGPU, a GPU of its own, or the processor alone.

    Imports no torch: a GPU is there when its driver is. Raises SetupError for `zerogpu` where there is no ZeroGPU.
    """
    mode = settings.hosting.mode
    if mode == "zerogpu" or (mode == "auto" and on_zerogpu()):
        return _require_zerogpu()
    if mode != "auto":
        return mode
    device = settings.render.device.split(":")[0]
    if device != "auto":
        return "cpu" if device == "cpu" else "gpu"
    return "gpu" if _has_gpu() else "cpu"


def apply_mode(settings: Settings, mode: Mode) -> Settings:
    """Apply a mode to the settings: the device, where the mode was set; no compilation on ZeroGPU."""
    changes: dict[str, object] = {}
    if settings.hosting.mode in ("cpu", "gpu") and settings.render.device == "auto":
        device = "cpu" if mode == "cpu" else ("mps" if sys.platform == "darwin" else "cuda")
        changes["render"] = settings.render.model_copy(update={"device": device})
    if mode == "zerogpu":
        changes["round"] = settings.round.model_copy(update={"compile": False})
    return settings.model_copy(update=changes)


def _require_zerogpu() -> Mode:
    if not on_zerogpu():
        raise SetupError(
            "DMPO_HOSTING__MODE is zerogpu, but this is no ZeroGPU (SPACES_ZERO_GPU is not set); choose the hardware "
            "ZeroGPU in the Space's settings, or set DMPO_HOSTING__MODE=auto"
        )
    if find_spec("spaces") is None:
        raise SetupError(
            "this is a ZeroGPU Space, but the package `spaces` is missing; add it to requirements.txt, or install "
            "dmpo-studio[space]"
        )
    return "zerogpu"


def _has_gpu(environment: Mapping[str, str] = os.environ) -> bool:
    if environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    apple = sys.platform == "darwin" and os.uname().machine == "arm64"
    return apple or any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))

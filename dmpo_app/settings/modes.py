"""The mode of a studio: everything on the processor, a GPU of its own, or ZeroGPU; set or detected."""

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from dmpo_app.errors import SetupError
from dmpo_app.settings.space_defaults import on_zerogpu
from dmpo_app.settings.tree import Settings

Mode = Literal["cpu", "gpu", "zerogpu"]


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
            "this is a ZeroGPU Space, but the package `spaces` is missing; add it to requirements.txt, or "
            "`pip install spaces`"
        )
    return "zerogpu"


def _has_gpu(environment: Mapping[str, str] = os.environ) -> bool:
    if environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    apple = sys.platform == "darwin" and os.uname().machine == "arm64"
    return apple or any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))

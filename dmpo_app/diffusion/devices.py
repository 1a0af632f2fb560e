"""The device of the weights: one rule for base models and scorers."""

from __future__ import annotations

import torch

from dmpo_app.errors import SetupError


def resolve_device(name: str) -> torch.device:
    """The torch device of a setting; `auto` is cuda, then mps, then cpu.

    Raises SetupError for a device this machine or this torch lacks.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch built without CUDA asserts
        raise SetupError(f"the device {name!r} cannot be used: {error}; set DMPO_RENDER__DEVICE=auto") from error
    return device

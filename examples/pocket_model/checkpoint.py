"""Atomic training checkpoints: a stage that is killed goes on where it was, as if nothing had happened."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dmpo_app.io.files import atomic_file


def save_atomically(state: Mapping[str, Any], path: Path) -> None:
    """Write `state` beside `path`, then rename: a reader finds the old file or the new one, never half of one."""
    with atomic_file(path) as file:
        torch.save(dict(state), file)


def load(path: Path) -> dict[str, Any] | None:
    """Load the checkpoint at `path`; None where there is none yet."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def random_state(generator: torch.Generator, numpy_generator: np.random.Generator) -> dict[str, Any]:
    """State of both random generators, in types that a weights-only load accepts."""
    position = numpy_generator.bit_generator.state
    return {"torch": generator.get_state(), "numpy": {key: _plain(value) for key, value in position.items()}}


def _plain(value: Any) -> Any:
    # PCG64's state has 128-bit integers: as text, because torch's safe unpickler reads only 64 bits reliably.
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value if isinstance(value, str) else f"int:{int(value)}"


def _from_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _from_plain(item) for key, item in value.items()}
    return int(value[4:]) if value.startswith("int:") else value


def restore_random_state(
    state: Mapping[str, Any], generator: torch.Generator, numpy_generator: np.random.Generator
) -> None:
    """Restore both random generators to a state of `random_state`."""
    generator.set_state(state["torch"])
    numpy_generator.bit_generator.state = _from_plain(state["numpy"])

"""Rank and world size from the environment variables set by `torchrun`. Does not import torch."""

import os

from dmpo_app.errors import SetupError


def world_size() -> int:
    """The number of processes started together; 1 when this one was started by itself. Raises SetupError."""
    try:
        return int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError as error:
        raise SetupError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']!r} is not a number; it is torchrun that sets it"
        ) from error


def local_rank() -> int:
    """The rank of this process among those on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """The number of processes on this machine, which share its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(world_size())))


def is_under_torchrun() -> bool:
    """True when torchrun, or accelerate launch, started this process and waits for it."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_secondary_process() -> bool:
    """True in all but the main process (rank 0) of several: it follows that one."""
    return int(os.environ.get("RANK", "0")) > 0

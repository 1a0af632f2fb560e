"""What `torchrun` or `accelerate launch` say of the processes that they start together. Does without torch."""

from __future__ import annotations

import os

from dmpo_app.errors import SetupProblem


def world_size() -> int:
    """Processes that were started together; 1 when this one was started by itself. Raises SetupProblem."""
    try:
        return int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError as error:
        raise SetupProblem(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']!r} is not a number; it is torchrun that sets it"
        ) from error


def local_rank() -> int:
    """Which of this machine's processes this is."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def processes_here() -> int:
    """How many of the processes share this machine's cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(world_size())))


def is_follower() -> bool:
    """Whether this is one of several processes, and not the first: it does as that one says."""
    return int(os.environ.get("RANK", "0")) > 0

"""An objective whose loss never returns, once, when a file asks for it; and its ways to hang, which need no torch.

The environment variable HANG names the file; its content is the way. The file is gone then, and the next trainer works.
"""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

VARIABLE = "HANG"
NAME = "tests.training.hanging_objective:hanging"


def deadlock() -> None:
    """Wait in Python for a lock that this thread holds."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def hang_in_c(library: ctypes.CDLL) -> None:
    mutex = ctypes.create_string_buffer(
        128
    )  # of zeros: one that is not recursive, and takes signals as no reason to return
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)


def hang_if_asked() -> None:
    marker = Path(os.environ.get(VARIABLE, "nowhere"))
    if not marker.is_file():
        return
    way = marker.read_text()
    marker.unlink()
    if way == "deadlock":
        deadlock()
    elif way == "call into C":
        hang_in_c(ctypes.CDLL(None))
    elif way == "call into C that holds the interpreter":
        hang_in_c(ctypes.PyDLL(None))
    elif way == "endless loop":
        while True:
            pass


def hanging(margin: Tensor, target: Tensor) -> Tensor:
    """(u - q)^2, if it returns."""
    hang_if_asked()
    return (margin - target).square()

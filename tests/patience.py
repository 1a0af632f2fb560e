"""Waiting in tests: for a condition, and no longer than PATIENCE.

A wait's limit is there to end a test that hangs, not to say how fast a machine is: it costs nothing where things are
fast, and one that is short fails on a busy machine. So every limit is this one, or larger.
"""

import time
from collections.abc import Callable

PATIENCE = 120.0
"""Seconds. Ten times what the slowest wait of the tests takes on two cores."""


def wait_until(
    condition: Callable[[], object],
    what: str,
    *,
    seconds: float = PATIENCE,
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Return once `condition()` holds. Fail in `seconds`, naming `what` was waited for, a clause: "the pool is full".

    `pause` takes seconds, and may do something else meanwhile.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain until {what}"
        pause(0.02)

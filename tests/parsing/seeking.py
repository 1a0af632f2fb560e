"""A generator that seeks long before it finds, for parser processes."""

import time
from collections.abc import Iterator

from dmpo_app.parsing.limits import keep_going


def seek(seconds: float) -> Iterator[str]:
    """Yield one item after so many seconds of work."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        keep_going()
    yield "found"

"""Threads for blocking work, in lanes of their own, so that one kind of request never waits behind another.

A vote waits in its thread until its commit; Gradio and file answers use the framework's own 40 threads. With lanes, a
flood of one leaves the others their threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

_T = TypeVar("_T")


class Lane:
    """At most `width` blocking calls at a time; more of them wait their turn without holding a thread."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._limiter: anyio.CapacityLimiter | None = None

    async def run(self, work: Callable[[], _T]) -> _T:
        """Run `work` in a thread and give back what it returns or raises."""
        if self._limiter is None:  # belongs to the event loop that uses it, so it is made on first use
            self._limiter = anyio.CapacityLimiter(self._width)
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


class Lanes:
    """Votes (each waits for a commit), reads (short queries and files), and the rest."""

    def __init__(self) -> None:
        self.votes = Lane(64)
        self.reads = Lane(24)
        self.rare = Lane(8)

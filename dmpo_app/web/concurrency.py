"""Threads for blocking work, in lanes of their own, so that one kind of request never waits behind another.

Gradio and file answers use the framework's own 40 threads. With lanes, a flood of one leaves the others their threads.
Votes and assignments have no threads at all: the store's writer does the work, and to hand each of them to a thread
that waits for it costs more than the work itself.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

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


class WriterLane:
    """At most `width` requests wait for the store's writer at a time, fewer than its queue holds; more wait here."""

    def __init__(self, width: int) -> None:
        self._limiter = asyncio.Semaphore(width)

    async def run(self, submit: Callable[[], Future[_T]]) -> _T:
        """What the future that `submit` answers comes to. `submit` may not block."""
        async with self._limiter:
            return await asyncio.wrap_future(submit())


class Shared(Generic[_T]):
    """One answer for all who ask at about the same time, at most one in `seconds`.

    The work begins after each of them asked, so that nobody is told what was true before.
    """

    def __init__(self, lane: Lane, work: Callable[[], _T], *, seconds: float = 0.05) -> None:
        self._lane, self._work, self._seconds = lane, work, seconds
        self._begun = -math.inf
        self._next: asyncio.Task[_T] | None = None

    async def get(self) -> _T:
        """What the work returns; raises what it raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._run())
        # One of many who leaves does not take the answer with them.
        return await asyncio.shield(self._next)

    async def _run(self) -> _T:
        try:
            await asyncio.sleep(max(0.0, self._begun + self._seconds - time.monotonic()))
        finally:
            self._next = None  # who asks from now on is told by the one after
        self._begun = time.monotonic()
        return await self._lane.run(self._work)


class Lanes:
    """Votes and assignments, what is written besides, reads (short queries and files), and the rest."""

    def __init__(self) -> None:
        self.votes = WriterLane(512)
        self.writes = Lane(64)
        self.reads = Lane(24)
        self.rare = Lane(8)

"""Concurrency of the API: threads for blocking work by kind of request, and backpressure for renders.

Gradio and file answers use the framework's own 40 threads. With lanes, a flood of one leaves the others their threads.
Votes and assignments have no threads at all: the store's writer does the work, and to hand each of them to a thread
that waits for it costs more than the work itself.

A flood of them then costs the event loop, which votes wait for as well, a tenth of what it would cost to understand
each and refuse it.
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
from starlette.types import ASGIApp, Receive, Scope, Send

from dmpo_app.errors import Busy
from dmpo_app.web.error_responses import hardened, of_studio_error
from dmpo_app.web.services import Services

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


class Crowding:
    """ASGI wrapper around the API; `path`: where renders are asked for."""

    def __init__(self, app: ASGIApp, services: Services, path: str) -> None:
        self._app = app
        self._renderer = services.renderer
        self._most = services.settings.render.queue_size
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == self._path and scope["method"] == "POST":
            waiting = self._renderer.state.pending
            if waiting >= self._most:
                busy = Busy(f"{waiting} images are waiting to be made already; try again in a moment")
                await hardened(of_studio_error(busy))(scope, receive, send)
                return
        await self._app(scope, receive, send)

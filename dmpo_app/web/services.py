"""The services behind the page and the JSON API, and their limits: threads, backpressure for renders.

Gradio and file answers use the framework's own 40 threads. With limiters of their own, a flood of one kind of request
leaves the others their threads. Votes and assignments have no threads at all: the store's writer does the work, and to
hand each of them to a thread that waits for it costs more than the work itself.

Renders are turned away while the model is busy, before anything is read of them: a flood of them then costs the event
loop, which votes wait for as well, a tenth of what it would cost to understand each and refuse it.
"""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, TypeVar

import anyio
import anyio.to_thread
from starlette.types import ASGIApp, Receive, Scope, Send

from dmpo_app.domain.lineage import BaseModelRef, Renderer, Sampling, TrainerSupervisor, ZeroGpuService
from dmpo_app.errors import BusyError
from dmpo_app.exchange.importing.import_desk import ImportService
from dmpo_app.judging.decision_thread import DecisionThread
from dmpo_app.judging.service import JudgingService
from dmpo_app.labeling.moderation import Moderation
from dmpo_app.labeling.service import LabelingService
from dmpo_app.settings import Mode, Settings
from dmpo_app.store import Store
from dmpo_app.web.error_responses import add_security_headers, response_from_studio_error
from dmpo_app.web.metrics import Metrics
from dmpo_app.web.rate_limits import WrongTokens


@dataclass(frozen=True)
class Services:
    """The services behind every request. `base` is the lineage that is served."""

    store: Store
    base: BaseModelRef
    settings: Settings
    labeling: LabelingService
    renderer: Renderer
    trainer: TrainerSupervisor
    admin_token: str = field(repr=False)
    """Administrators send it as a Bearer token; never logged, so it is not in the repr either."""
    sampling: Sampling
    """Sampling defaults of the base model, for requests that set none."""
    mode: Mode = "cpu"
    """Hardware mode of the studio, as far as it is known before the model is loaded."""
    gpu_minutes: ZeroGpuService | None = None
    """GPU minutes of ZeroGPU, on the quota of the person who asks; None elsewhere."""
    backup_lag: Callable[[], float] | None = None
    """Seconds since uploads to the backup began to fail, 0 while they succeed; None without a backup."""

    @cached_property
    def metrics(self) -> Metrics:
        """The metrics of this server."""
        return Metrics(self)

    def count_pool(self) -> int:
        """Count the pairs, or sets, of the pool that nobody has judged."""
        return self.store.pairs.count_unjudged(self.base, num_images=self.settings.labeling.num_images)

    @cached_property
    def wrong_tokens(self) -> WrongTokens:
        """The wrong administrators' tokens that were sent to this server."""
        return WrongTokens(self.settings.limits)

    @cached_property
    def moderation(self) -> Moderation:
        """The acts of administrators about reports and annotators."""
        return Moderation(self.store, self.base, self.labeling.standings)

    @cached_property
    def judging(self) -> JudgingService:
        """The comparisons of versions by people's duels."""
        return JudgingService(self.store, self.base, self.settings.judging)

    @cached_property
    def decisions(self) -> DecisionThread:
        """The thread that decides by duels; whoever opens the studio starts and stops it."""
        return DecisionThread(self.judging)

    @cached_property
    def imports(self) -> ImportService:
        """The import desk for data sets that administrators send; whoever opens the studio closes it."""
        return ImportService(self.store, self.base, self.settings)


_T = TypeVar("_T")


class ThreadLimiter:
    """Thread limit: at most `width` blocking calls at a time; more of them wait their turn without holding a thread."""

    def __init__(self, width: int) -> None:
        self._max_threads = width
        self._limiter: anyio.CapacityLimiter | None = None

    async def run(self, work: Callable[[], _T]) -> _T:
        """Run `work` in a thread and give back what it returns or raises."""
        if self._limiter is None:  # belongs to the event loop that uses it, so it is made on first use
            self._limiter = anyio.CapacityLimiter(self._max_threads)
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


class WriterLimiter:
    """Writer limit: at most `width` requests wait for the store's writer, fewer than its queue holds; others wait."""

    def __init__(self, width: int) -> None:
        self._limiter = asyncio.Semaphore(width)

    async def run(self, submit: Callable[[], Future[_T]]) -> _T:
        """Await the future that `submit` returns. `submit` may not block."""
        async with self._limiter:
            return await asyncio.wrap_future(submit())


class Coalesced(Generic[_T]):
    """Coalesced calls: one result for all callers at about the same time, computed at most once in `seconds`.

    The work begins after each of them called, so that nobody gets a result from before.
    """

    def __init__(self, limiter: ThreadLimiter, work: Callable[[], _T], *, seconds: float = 0.05) -> None:
        self._limiter, self._work, self._min_interval_seconds = limiter, work, seconds
        self._started_at = -math.inf
        self._pending_task: asyncio.Task[_T] | None = None

    async def get(self) -> _T:
        """Return the result of the next run of the work; raises what it raises."""
        if self._pending_task is None:
            self._pending_task = asyncio.create_task(self._run())
        # A caller who leaves does not cancel the work for the others.
        return await asyncio.shield(self._pending_task)

    async def _run(self) -> _T:
        try:
            await asyncio.sleep(max(0.0, self._started_at + self._min_interval_seconds - time.monotonic()))
        finally:
            self._pending_task = None  # calls from now on belong to the next run
        self._started_at = time.monotonic()
        return await self._limiter.run(self._work)


class RequestLimiters:
    """The limiters of a server: votes and assignments, other writes, reads (short queries and files), background."""

    def __init__(self) -> None:
        self.votes = WriterLimiter(512)
        self.writes = ThreadLimiter(64)
        self.reads = ThreadLimiter(24)
        self.background = ThreadLimiter(8)


class RenderBackpressureMiddleware:
    """ASGI middleware around the API; `path`: the path of the render route."""

    def __init__(self, app: ASGIApp, services: Services, path: str) -> None:
        self._app = app
        self._renderer = services.renderer
        self._queue_size = services.settings.render.queue_size
        self._render_path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == self._render_path and scope["method"] == "POST":
            num_pending = self._renderer.state.pending
            if num_pending >= self._queue_size:
                busy = BusyError(f"{num_pending} images are waiting to be made already; try again in a moment")
                await add_security_headers(response_from_studio_error(busy))(scope, receive, send)
                return
        await self._app(scope, receive, send)

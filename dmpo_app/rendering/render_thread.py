"""The render thread: the one owner of the live model, and its background work between requests.

Everybody else submits requests and gets futures. Between two jobs the thread checks whether another version is live and
swaps it in. A waiting person comes first; the background (pairs, contact sheet, effects of new versions, purging) gets
the rest. A job is one request, one pair, one row of images or one batch of measures, so a person waits for at most one
of those. torch is imported inside the thread: the page is up long before.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, TypeVar

from dmpo_app.diffusion.hub import is_passing_load_error
from dmpo_app.domain.lineage import BaseModelRef, RenderedImage, RendererState, RenderRequest, check_request
from dmpo_app.errors import (
    AdapterError,
    BadInputError,
    BusyError,
    NotFoundError,
    NotReadyError,
    StorageFullError,
    StudioError,
)
from dmpo_app.io.liveness import Activity, announce_through
from dmpo_app.rendering.duel_planner import DuelPlanner
from dmpo_app.rendering.effects import EffectsWork
from dmpo_app.rendering.pool import ContactSheetPlanner, PairPlan, PoolPlanner
from dmpo_app.settings import Settings
from dmpo_app.store import Store, utc_now

if TYPE_CHECKING:
    from dmpo_app.rendering.engine import Engine


_log = logging.getLogger(__name__)

IDLE_SECONDS = 0.2
ERROR_PAUSE_SECONDS = 5.0
LOADING_STOP_SECONDS = 1.0
"""Loading cannot be interrupted; the thread is a daemon, and has nothing to lose."""
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 5.0, 300.0
_PURGE_EVERY = timedelta(hours=1)
_RECHECK_EVERY = timedelta(minutes=1)
_RECHECKED_IMAGES = 256
_SHUTTING_DOWN = "the studio is shutting down"
_Work = TypeVar("_Work")


@dataclass(frozen=True, slots=True)
class _QueuedRender:
    request: RenderRequest
    future: Future[list[RenderedImage]] = field(default_factory=Future)


class RenderThread:
    """The thread that renders requests and, between them, background work. Implements `Renderer`.

    `start` it once; once the model is loaded `stop` takes at most a denoising step.
    """

    def __init__(
        self,
        store: Store,
        base: BaseModelRef,
        settings: Settings,
        *,
        num_threads: int | None = None,
        rng: random.Random | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Prepare the thread. `num_threads`: torch's threads for rendering; None leaves torch's own choice."""
        self._store = store
        self._base = base
        self._settings = settings
        self._num_threads = num_threads
        self._rng = rng or random.Random()
        self._now = now
        self._wake = threading.Condition()  # guards everything below
        self._jobs: deque[_QueuedRender] = deque()
        self._stopping = False
        self._phase: Literal["starting", "loading", "ready", "failed", "stopped"] = "starting"
        self._message = "starting"
        self._is_retrying = False
        self._activity = Activity(f"loading {base.source}")
        self._live_version: int | None = None
        self._device: str | None = None
        self._thread = threading.Thread(target=self._run, name="render", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Abandon the running job, refuse the queued ones, and end the thread. What is stored already stays."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
            if self._phase == "loading":
                timeout = min(timeout, LOADING_STOP_SECONDS)
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._fail_queued(_SHUTTING_DOWN)

    @property
    def state(self) -> RendererState:
        with self._wake:
            is_loading = self._phase == "loading" and not self._is_retrying
            message = self._activity.name if is_loading else self._message  # loading, or downloading
            return RendererState(
                self._phase, message, self._live_version, len(self._jobs), self._device, self._is_retrying
            )

    def submit(self, request: RenderRequest) -> Future[list[RenderedImage]]:
        """Queue a person's request; it may wait for the model to load.

        Raises BadInputError for values out of range, BusyError when the queue is full, NotReadyError when there will be
        no model.
        The future raises StudioError: NotFoundError for a version there is not, AdapterError for one that is damaged.
        """
        check_request(request)
        job = _QueuedRender(request)
        with self._wake:
            if self._stopping or self._phase in ("failed", "stopped"):
                raise NotReadyError(self._message if self._phase == "failed" else _SHUTTING_DOWN)
            if len(self._jobs) >= self._settings.render.queue_size:
                raise BusyError(f"{len(self._jobs)} images are waiting to be made already; try again in a moment")
            self._jobs.append(job)
            self._wake.notify_all()
        return job.future

    def _run(self) -> None:
        engine = self._load()
        if engine is None:
            self._fail_queued(self.state.message)
            return
        work = BackgroundWork(engine, self._store, self._base, self._settings, rng=self._rng, now=self._now)
        while not self._is_stopping():
            self._step(engine, work)
        self._set("stopped", _SHUTTING_DOWN)
        self._fail_queued(_SHUTTING_DOWN)

    def _load(self) -> Engine | None:
        """Import torch and load the model, again and again while it fails for a reason that passes.

        None when the thread is to end, or with the phase 'failed' and a message fit for people.
        """
        announce_through(self._activity)
        for pause in _retry_pauses():
            self._set("loading", self._activity.name)
            try:
                engine = self._load_engine()
                break
            except Exception as error:  # noqa: BLE001 - the page must say that there will be no images
                if not self._wait_to_retry(error, pause):
                    return None
        _log.info("the base model is loaded on %s", engine.device)
        with self._wake:
            self._device = engine.device
        return engine

    def _load_engine(self) -> Engine:
        import torch

        from dmpo_app.rendering.engine import Engine

        if self._num_threads is not None:
            torch.set_num_threads(self._num_threads)
        return Engine.load(self._store, self._base, self._settings)

    def _wait_to_retry(self, error: Exception, pause: float) -> bool:
        """Wait before loading is tried again; False where it is not, as the reason stays or the thread is to end."""
        is_told = isinstance(error, StudioError)
        message = str(error) if is_told else f"the base model could not be loaded ({type(error).__name__}: {error})"
        if not is_passing_load_error(error):
            _log.error("the base model could not be loaded: %s", error, exc_info=None if is_told else error)
            self._set("failed", message if is_told else f"{message}; see the log")
            return False
        _log.warning("the base model could not be loaded, it is tried again in %.0f s: %s", pause, error)
        self._set("loading", f"{message}; it is tried again in {pause:.0f} s", is_retrying=True)
        with self._wake:
            return not self._wake.wait_for(lambda: self._stopping, pause)

    def _step(self, engine: Engine, work: BackgroundWork) -> None:
        """Run one job, or sleep shortly. Every error is logged and shown; the thread goes on."""
        try:
            engine.sync_live_version()
            self._set("ready", engine.problem, engine.live_version)
            job = self._next_job()
            if job is not None:
                self._run_job(engine, job)
            elif not work.step(self._is_stopping):
                self._sleep(IDLE_SECONDS)
        except StorageFullError as error:
            self._set("ready", f"the disk is full, no new pairs are made: {error}")
            _log.error("no new pairs are made: %s", error)
            self._sleep(ERROR_PAUSE_SECONDS)
        except Exception as error:  # noqa: BLE001 - the thread outlives any single failure
            if self._is_stopping():
                return  # interrupted on purpose, or the store has closed underneath
            _log.exception("making images in the background failed")
            self._set("ready", f"making images failed: {error}" if isinstance(error, StudioError) else "see the log")
            self._sleep(ERROR_PAUSE_SECONDS)

    def _run_job(self, engine: Engine, job: _QueuedRender) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        try:
            images = engine.render(job.request, self._is_stopping)
        except StudioError as error:
            job.future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - whoever asked gets an answer
            if self._is_stopping():
                job.future.set_exception(NotReadyError(_SHUTTING_DOWN))
                return
            _log.exception("a request failed: versions %s, seed %d", job.request.versions, job.request.seed)
            failure = StudioError("the image could not be made; the server's log says why")
            failure.__cause__ = error
            job.future.set_exception(failure)
        else:
            job.future.set_result(images)

    def _next_job(self) -> _QueuedRender | None:
        with self._wake:
            return self._jobs.popleft() if self._jobs else None

    def _sleep(self, seconds: float) -> None:
        """Sleep until there is a request, the thread is to end, or the time is over."""
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or bool(self._jobs), seconds)

    def _is_stopping(self) -> bool:
        return self._stopping

    def _set(
        self,
        phase: Literal["starting", "loading", "ready", "failed", "stopped"],
        message: str,
        live_version: int | None = None,
        *,
        is_retrying: bool = False,
    ) -> None:
        with self._wake:
            self._phase, self._message, self._is_retrying = phase, message, is_retrying
            if live_version is not None:
                self._live_version = live_version

    def _fail_queued(self, reason: str) -> None:
        while (job := self._next_job()) is not None:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(NotReadyError(reason))


def _retry_pauses() -> Iterator[float]:
    """Yield the seconds before loading is tried again: each twice the last, up to five minutes, without end."""
    pause = FIRST_RETRY_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, MAX_RETRY_SECONDS)


class RenderPurge:
    """Purge of the before/after tab's images that are older than `render.keep_days`, once an hour."""

    def __init__(self, store: Store, base: BaseModelRef, settings: Settings, now: Callable[[], datetime]) -> None:
        self._store = store
        self._base = base
        self._keep = timedelta(days=settings.render.keep_days)
        self._now = now
        self._next = now()

    def run_if_due(self) -> None:
        if self._now() >= self._next:
            self._next = self._now() + _PURGE_EVERY
            self._store.images.purge_renders(self._base, self._now() - self._keep)


class DamageRecheck:
    """Recheck of the images that were found damaged, some of them once a minute: what was put back is shown again."""

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._next = now()
        self._last_image_id = 0

    def run_if_due(self) -> None:
        if self._now() >= self._next:
            self._next = self._now() + _RECHECK_EVERY
            self._last_image_id = self._store.damage.recheck(limit=_RECHECKED_IMAGES, after=self._last_image_id)


def most_urgent(
    *, pool_is_low: bool, pairs: Callable[[], _Work], sheet: Callable[[], _Work], rest: Callable[[], _Work]
) -> _Work:
    """Do the most urgent work there is, and return it: a pool that has run dry, the contact sheet, then the rest.

    Each callable gives something false when it has nothing to do.
    """
    if pool_is_low and (work := pairs()):
        return work
    return sheet() or rest()


class BackgroundWork:
    """The background tasks in order of urgency; `step` does one and returns, so that requests can come in between."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        base: BaseModelRef,
        settings: Settings,
        *,
        rng: random.Random,
        now: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._purge = RenderPurge(store, base, settings, now)
        self._recheck = DamageRecheck(store, now)
        self._pool = PoolPlanner(
            store,
            base,
            settings.pool,
            rng=rng,
            shares_cpu=engine.shares_cpu,
            num_images=settings.labeling.num_images,
        )
        self._sheet = ContactSheetPlanner(store, base)
        self._duels = DuelPlanner(store, base, settings.judging, rng=rng)
        self._effects = EffectsWork(engine, store, base, settings)
        self._turns = deque([self._encode_imported, self._make_pair, self._measure_effects])

    def step(self, should_stop: Callable[[], bool]) -> bool:
        """Do the most useful thing; False when there was nothing to do.

        A pool that has run dry comes before the contact sheet, then come duels, then the rest of the pool, in turns
        with imported pairs that need latents and with the effects of new versions.
        """
        self._purge.run_if_due()
        self._recheck.run_if_due()
        return most_urgent(
            pool_is_low=self._pool.is_low(),
            pairs=lambda: self._make_pair(should_stop),
            sheet=lambda: self._make_sheet_row(should_stop),
            rest=lambda: self._make_duel(should_stop) or self._take_turns(should_stop),
        )

    def _take_turns(self, should_stop: Callable[[], bool]) -> bool:
        """Do one piece of the first task that has something to do; the next time another one comes first."""
        for _ in range(len(self._turns)):
            task = self._turns[0]
            self._turns.rotate(-1)
            if task(should_stop):
                return True
        return False

    def _measure_effects(self, should_stop: Callable[[], bool]) -> bool:
        return not self._pool.is_paused_by_round() and self._effects.step(should_stop)

    def _encode_imported(self, _should_stop: Callable[[], bool]) -> bool:
        """Encode imported pairs, but not while a round trains on the same processor: both would take twice as long."""
        return not self._pool.is_paused_by_round() and self._engine.encode_imported()

    def _make_pair(self, should_stop: Callable[[], bool]) -> bool:
        plan: PairPlan | None = self._pool.next_pair(self._engine.live_version)
        if plan is None:
            return False
        if not self._engine.make_pair(plan, should_stop):
            self._pool.record_refusal(plan)
        return True

    def _make_duel(self, should_stop: Callable[[], bool]) -> bool:
        """Make a duel, but not while a round trains on the same processor, as for imported pairs."""
        if self._pool.is_paused_by_round():
            return False
        plan = self._duels.next_duel()
        if plan is None:
            return False
        try:
            if not self._engine.make_duel(plan, should_stop):
                self._duels.record_refusal(plan)
        except (AdapterError, BadInputError, NotFoundError) as error:
            self._duels.skip(plan, error)
        return True

    def _make_sheet_row(self, should_stop: Callable[[], bool]) -> bool:
        plan = self._sheet.next_row(self._engine.live_version)
        if plan is None:
            return False
        try:
            self._engine.make_sheet_row(plan, should_stop)
        except (AdapterError, BadInputError):
            self._sheet.skip_version(plan.version)
        else:
            self._sheet.mark_done(plan)
        return True

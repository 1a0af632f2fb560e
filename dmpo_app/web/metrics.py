"""Metrics of a studio in Prometheus' text format: requests as they pass, and the studio's state when it is asked for.

Labels come from sets that do not grow with what callers send: route templates, statuses, codes of this API.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dmpo_app.errors import StudioError

if TYPE_CHECKING:
    from dmpo_app.web.services import Services

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
"""Upper bounds in seconds: a vote takes milliseconds, a render up to minutes."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER = "other"
_MAX_CODE = 40


class Metrics:
    """Metrics of one server, in a registry of their own: several studios in one process do not mix."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, services: Services) -> None:
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "dmpo_request_seconds",
            "Seconds from a request to the end of its answer.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._requests = Counter("dmpo_requests", "Requests.", ("method", "route", "status"), registry=self._registry)
        outcomes = "Votes sent: new, repeated, or the code of the refusal."
        self._votes = Counter("dmpo_votes", outcomes, ("outcome",), registry=self._registry)
        self._registry.register(StudioCollector(services))
        ProcessCollector(registry=self._registry)
        # A label's lookup takes a lock and a hash of strings; what was seen is kept, and there are few.
        self._observers: dict[tuple[str, str, int], Callable[[float], None]] = {}

    def render(self) -> bytes:
        """Render all metrics as text. Reads the store."""
        return generate_latest(self._registry)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that took `seconds`; `route` is a template of this API."""
        key = (method, route, status)
        observer = self._observers.get(key)
        if observer is None:
            histogram = self._seconds.labels(method, route)
            counter = self._requests.labels(method, route, str(status))

            def observer(seconds: float) -> None:
                histogram.observe(seconds)
                counter.inc()

            self._observers[key] = observer
        observer(seconds)

    def count_vote(self, outcome: str) -> None:
        """Count a vote by what became of it."""
        self._votes.labels(outcome).inc()


class MetricsMiddleware:
    """ASGI middleware around the whole API, whose routes but a few are below `prefix`."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, prefix: str) -> None:
        self._app = app
        self._metrics = metrics
        self._prefix = prefix
        self._vote_path = f"{prefix}/votes"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, refusal = time.perf_counter(), 500, b""
        is_vote = scope["method"] == "POST" and scope["path"] == self._vote_path

        async def send_observed(message: Message) -> None:
            nonlocal status, refusal
            if message["type"] == "http.response.start":
                status = message["status"]
            elif is_vote and status >= 400:
                refusal += message.get("body", b"")
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else _OTHER
            self._metrics.observe(method, self._template(scope), status, time.perf_counter() - started)
            if is_vote:
                self._metrics.count_vote(_vote_outcome(status, refusal))

    def _template(self, scope: Scope) -> str:
        """The template of the route that answered; a path that is none of ours has none."""
        template = getattr(scope.get("route"), "path", None)
        if template is None:
            return _OTHER
        is_below = scope["path"].startswith(self._prefix) and not template.startswith(self._prefix)
        return f"{self._prefix}{template}" if is_below else str(template)


def _vote_outcome(status: int, refusal: bytes) -> str:
    if status < 400:
        return "new" if status == 201 else "repeated"
    try:
        return str(json.loads(refusal)["code"])[:_MAX_CODE]
    except (ValueError, KeyError, TypeError):
        return _OTHER


class StudioCollector(Collector):
    """Collector of a studio's state at the moment it is asked for: store, renderer, trainer, backup."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def describe(self) -> list[Any]:
        """Name nothing in advance: reading the state takes the store, which registering is not to wait for."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Yield the state; what the store cannot answer now is left out, and `dmpo_store_up` is 0."""
        services = self._services
        renderer, trainer = services.renderer.state, services.trainer.state
        yield _gauge("dmpo_render_queue", "Renders that people wait for.", renderer.pending)
        yield _by_label("dmpo_renderer_phase", "1 for the present phase of the renderer.", "phase", {renderer.phase: 1})
        yield _gauge("dmpo_trainer_up", "1 while the trainer runs.", int(trainer.running))
        restarts = CounterMetricFamily("dmpo_trainer_restarts", "Restarts of the trainer.")
        restarts.add_metric([], trainer.restarts)
        yield restarts
        yield _gauge("dmpo_writer_queue", "Writes that wait for the store's writer.", services.store.num_waiting_writes)
        if services.backup_lag is not None:
            yield _gauge("dmpo_backup_lag_seconds", "Seconds since uploads began to fail.", services.backup_lag())
        try:
            families = list(self._read_store())
        except (StudioError, OSError):
            families = []
        yield _gauge("dmpo_store_up", "1 when the store answers.", int(bool(families)))
        yield from families

    def _read_store(self) -> Iterator[GaugeMetricFamily]:
        store, base = self._services.store, self._services.base
        yield _gauge("dmpo_pool_pairs", "Pairs in the pool that nobody has judged.", self._services.count_pool())
        yield _gauge("dmpo_damaged_pairs", "Pairs out of the pool since an image is damaged.", store.damage.count(base))
        yield _gauge("dmpo_live_votes", "Votes on record, undone ones left out.", store.votes.count(base))
        yield _gauge("dmpo_open_assignments", "Assignments that can be voted on.", store.assignments.count_open(base))
        yield _gauge("dmpo_live_version", "The version that is live.", store.adapters.live_version(base))
        counts = {status.value: count for status, count in store.rounds.count_by_status(base).items()}
        yield _by_label("dmpo_rounds", "Rounds by their status.", "status", counts)


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value=value)


def _by_label(name: str, meaning: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, meaning, labels=[label])
    for text, value in values.items():
        family.add_metric([text], value)
    return family

"""Limits per identity, for public mode: token buckets in memory, bounded in number."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from dmpo_app.web.error_responses import ApiProblem

MAX_IDENTITIES = 20_000


@dataclass
class _Bucket:
    tokens: float
    at: float


class RateLimit:
    """At most `per_minute` takes a minute for each key, in bursts of at most as many. Thread-safe.

    The least recently seen keys are forgotten beyond `MAX_IDENTITIES`, which only ever gives them a fresh start.
    """

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = float(per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, key: str) -> float:
        """Take one. 0.0 when there was one, else the seconds until there is."""
        now = self._clock()
        with self._lock:
            bucket = self._buckets.pop(key, None) or _Bucket(self._capacity, now)
            bucket.tokens = min(self._capacity, bucket.tokens + (now - bucket.at) * self._per_second)
            bucket.at = now
            self._buckets[key] = bucket
            if len(self._buckets) > MAX_IDENTITIES:
                self._buckets.popitem(last=False)
            if bucket.tokens >= 1:
                bucket.tokens -= 1
                return 0.0
            return (1 - bucket.tokens) / self._per_second


class Limits:
    """The limits of one server; all of them off unless the studio is public."""

    def __init__(self, *, on: bool, votes: int, renders: int, sessions: int, reports: int) -> None:
        self.on = on
        self._votes = RateLimit(votes)
        self._renders = RateLimit(renders)
        self._sessions = RateLimit(sessions)
        self._reports = RateLimit(reports)

    def vote(self, key: str) -> None:
        self._take(self._votes, key, "votes")

    def render(self, key: str) -> None:
        self._take(self._renders, key, "images")

    def report(self, key: str) -> None:
        self._take(self._reports, key, "reports")

    def session(self) -> None:
        """One bucket for everybody: a new session is a new identity, so this one bounds all the others."""
        self._take(self._sessions, "all", "new visitors")

    def _take(self, limit: RateLimit, key: str, what: str) -> None:
        wait = limit.take(key) if self.on else 0.0
        if wait > 0:
            seconds = math.ceil(wait)
            raise ApiProblem(429, "too_many", f"Too many {what}; try again in {seconds} s.", retry_after=seconds)

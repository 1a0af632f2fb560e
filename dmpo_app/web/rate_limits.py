"""Rate limits per identity, for public mode: token buckets in memory, bounded in number."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from dmpo_app.web.error_responses import ApiError

MAX_IDENTITIES = 20_000


@dataclass
class _Bucket:
    tokens: float
    updated_at: float


class RateLimiter:
    """Token bucket rate limit: at most `per_minute` a minute for each key, in bursts of at most as many. Thread-safe.

    The least recently seen keys are forgotten beyond `MAX_IDENTITIES`, which only ever gives them a fresh start.
    """

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = float(per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take_token(self, key: str) -> float:
        """Take a token from the bucket of `key`: 0.0 when there was one, else the seconds until there is."""
        now = self._clock()
        with self._lock:
            bucket = self._buckets.pop(key, None) or _Bucket(self._capacity, now)
            bucket.tokens = min(self._capacity, bucket.tokens + (now - bucket.updated_at) * self._per_second)
            bucket.updated_at = now
            self._buckets[key] = bucket
            if len(self._buckets) > MAX_IDENTITIES:
                self._buckets.popitem(last=False)
            if bucket.tokens >= 1:
                bucket.tokens -= 1
                return 0.0
            return (1 - bucket.tokens) / self._per_second


class RateLimits:
    """The rate limits of one server; all of them off unless the studio is public."""

    def __init__(self, *, on: bool, votes: int, renders: int, sessions: int, reports: int) -> None:
        self.is_enabled = on
        self._votes = RateLimiter(votes)
        self._renders = RateLimiter(renders)
        self._sessions = RateLimiter(sessions)
        self._reports = RateLimiter(reports)

    def check_vote(self, key: str) -> None:
        self._check(self._votes, key, "votes")

    def check_render(self, key: str) -> None:
        self._check(self._renders, key, "images")

    def check_report(self, key: str) -> None:
        self._check(self._reports, key, "reports")

    def check_session(self) -> None:
        """Limit new sessions, in one bucket for everybody: each is a new identity, so this bounds all the others."""
        self._check(self._sessions, "all", "new visitors")

    def _check(self, limiter: RateLimiter, key: str, subject: str) -> None:
        wait = limiter.take_token(key) if self.is_enabled else 0.0
        if wait > 0:
            seconds = math.ceil(wait)
            raise ApiError(429, "too_many", f"Too many {subject}; try again in {seconds} s.", retry_after=seconds)

"""Rate limits: token buckets of one annotator, inside those of their network and region, inside one of everybody."""

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network

from dmpo_app.settings import LimitSettings
from dmpo_app.web.error_responses import ApiError

_log = logging.getLogger(__name__)

MAX_IDENTITIES = 20_000
_REGIONS = 4


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


class NestedLimiter:
    """Nested rate limits: a bucket of one annotator within one of their network, their region, and everybody.

    A region has a quarter of what all have together: whoever has a thousand networks has them in one or two. A request
    that a smaller bucket refuses takes nothing from a larger one, so whoever floods empties their own. `per_minute`: of
    an annotator, or of a network where nobody is known.
    """

    def __init__(self, per_minute: int, limits: LimitSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._of_one = RateLimiter(per_minute, clock=clock)
        self._of_network = RateLimiter(per_minute * limits.network_factor, clock=clock)
        of_region = max(limits.network_factor, limits.total_factor / _REGIONS)
        self._of_region = RateLimiter(math.ceil(per_minute * of_region), clock=clock)
        self._of_all = RateLimiter(per_minute * limits.total_factor, clock=clock)

    def take_token(self, network: str, annotator_id: int | None = None) -> float:
        """Take a token from each bucket: 0.0 when there was one in all, else the seconds until the first has one."""
        if annotator_id is None:
            wait = self._of_one.take_token(network)
        else:
            wait = self._of_one.take_token(str(annotator_id)) or self._of_network.take_token(network)
        return wait or self._of_region.take_token(region_of(network)) or self._of_all.take_token("")


def region_of(network: str) -> str:
    """The region of a network: the /16 around a /24 of IPv4, the /48 around a /64 of IPv6, perhaps of one customer."""
    try:
        address = ip_network(network)
    except ValueError:  # a socket of this machine has no address
        return network
    return str(address.supernet(new_prefix=min(address.prefixlen, 16 if address.version == 4 else 48)))


class RateLimits:
    """The rate limits of one server; all of them off unless the studio is public. Networks are those of requests."""

    def __init__(self, limits: LimitSettings, *, on: bool) -> None:
        self.is_enabled = on
        self._votes = NestedLimiter(limits.votes_per_minute, limits)
        self._renders = NestedLimiter(limits.renders_per_minute, limits)
        self._reports = NestedLimiter(limits.reports_per_minute, limits)
        self._sessions = NestedLimiter(limits.sessions_per_minute, limits)
        self._logins = NestedLimiter(limits.logins_per_minute, limits)

    def check_vote(self, annotator_id: int, network: str) -> None:
        self._check(self._votes, "votes", network, annotator_id)

    def check_render(self, annotator_id: int | None, network: str) -> None:
        self._check(self._renders, "images", network, annotator_id)

    def check_report(self, annotator_id: int, network: str) -> None:
        self._check(self._reports, "reports", network, annotator_id)

    def check_session(self, network: str) -> None:
        self._check(self._sessions, "new visitors", network)

    def check_login(self, network: str) -> None:
        self._check(self._logins, "sign-ins", network)

    def _check(self, limiter: NestedLimiter, subject: str, network: str, annotator_id: int | None = None) -> None:
        wait = limiter.take_token(network, annotator_id) if self.is_enabled else 0.0
        if wait > 0:
            raise too_many(subject, wait)


def too_many(subject: str, wait: float) -> ApiError:
    """The error response 429, with the seconds to wait."""
    seconds = math.ceil(wait)
    return ApiError(429, "too_many", f"Too many {subject}; try again in {seconds} s.", retry_after=seconds)


LOG_SECONDS = 60.0


def _run_later(seconds: float, work: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    timer.start()


class WrongTokens:
    """Wrong administrators' tokens: limited for each network and in all, and told in the log, one line a minute."""

    def __init__(
        self,
        limits: LimitSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        run_later: Callable[[float, Callable[[], None]], None] = _run_later,
    ) -> None:
        self._limiter = NestedLimiter(limits.admin_tries_per_minute, limits, clock=clock)
        self._run_later = run_later
        self._lock = threading.Lock()
        self._num_untold = 0
        self._last_network = ""
        self._is_waiting = False

    def record(self, network: str) -> float:
        """Record a wrong token; returns the seconds to wait where there were too many, else 0.0."""
        with self._lock:
            self._num_untold += 1
            self._last_network = network
            is_first = not self._is_waiting
            self._is_waiting = True
        if is_first:
            self._tell()
        return self._limiter.take_token(network)

    def _tell(self) -> None:
        with self._lock:
            count, network, self._num_untold = self._num_untold, self._last_network, 0
            self._is_waiting = count > 0
        if count:
            _log.warning("%d wrong administrators' token%s, the last from %s", count, "s"[: count > 1], network)
            try:
                self._run_later(LOG_SECONDS, self._tell)
            except RuntimeError:  # no thread can be started now; the next wrong token is told at once
                with self._lock:
                    self._is_waiting = False

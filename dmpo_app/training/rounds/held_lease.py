"""The trainer's lease on a lineage."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from dmpo_app.domain.image import BaseModelRef
from dmpo_app.errors import LeaseLostError
from dmpo_app.store import Store

_log = logging.getLogger(__name__)


class TrainerLease:
    """Lease that is acquired, renewed and released. A trainer that restarts under the same `owner` need not wait."""

    def __init__(
        self, store: Store, base: BaseModelRef, owner: str, *, seconds: float, now: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._base = base
        self._owner = owner
        self._seconds = seconds
        self._now = now
        self._token: int | None = None
        self._renewed_at = now()

    @property
    def is_held(self) -> bool:
        """True while the lease was acquired and not known to be lost."""
        return self._token is not None

    @property
    def token(self) -> int:
        """The fencing token of the trainer's writes. Raises LeaseLostError without a lease."""
        if self._token is None:
            raise LeaseLostError("this trainer holds no lease")
        return self._token

    def acquire(self) -> bool:
        """Acquire the lease; False while another trainer has it."""
        self._token = self._store.lease.acquire(self._base, self._owner, lease_seconds=self._seconds)
        self._renewed_at = self._now()
        return self.is_held

    def renew(self) -> None:
        """Renew the lease when a quarter of it is over; to be called often. Raises LeaseLostError."""
        if self._now() - self._renewed_at >= timedelta(seconds=self._seconds / 4):
            self._store.lease.renew(self._base, self.token)
            self._renewed_at = self._now()

    def mark_lost(self) -> None:
        """Record that another trainer has the lease now."""
        self._token = None

    def release(self) -> None:
        """Release the lease, so that the next trainer need not wait. Without a lease nothing happens."""
        if self._token is None:
            return
        try:
            self._store.lease.release(self._base, self._token)
        except LeaseLostError:
            _log.info("the lease had gone to another trainer already")
        self._token = None

"""A lineage's lease in the hands of its trainer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.errors import LeaseLost
from dmpo_app.store import Store

_log = logging.getLogger(__name__)


class HeldLease:
    """Taken, renewed in time and given back. One that restarts under its old `owner` name need not wait for it."""

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
    def held(self) -> bool:
        """Whether it was taken, and nothing has been heard of losing it."""
        return self._token is not None

    @property
    def token(self) -> int:
        """What the trainer's writes prove themselves with. Raises LeaseLost without a lease."""
        if self._token is None:
            raise LeaseLost("this trainer holds no lease")
        return self._token

    def acquire(self) -> bool:
        """Take it; False while another trainer has it."""
        self._token = self._store.lease.acquire(self._base, self._owner, lease_seconds=self._seconds)
        self._renewed_at = self._now()
        return self.held

    def renew(self) -> None:
        """Renew it when a quarter of it is over; to be called often. Raises LeaseLost."""
        if self._now() - self._renewed_at >= timedelta(seconds=self._seconds / 4):
            self._store.lease.renew(self._base, self.token)
            self._renewed_at = self._now()

    def forget(self) -> None:
        """Another trainer has it now."""
        self._token = None

    def release(self) -> None:
        """Let the next trainer have it at once. Without a lease nothing happens."""
        if self._token is None:
            return
        try:
            self._store.lease.release(self._base, self._token)
        except LeaseLost:
            _log.info("the lease had gone to another trainer already")
        self._token = None

"""The lease of a lineage: one trainer at a time.

Time only decides when another may take over. What keeps a trainer that was merely slow from writing is its fencing
token: it grows with every holder, and each of the trainer's writes checks it within its own transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, select, update

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.errors import LeaseLostError
from dmpo_app.store.db.database import Database
from dmpo_app.store.schema import LeaseRow


class Lease:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def acquire(self, base: BaseModelRef, owner: str, *, lease_seconds: float) -> int | None:
        """Acquire the lease: a token greater than any before, or None while another owner's lease is fresh."""

        def work(connection: Connection) -> int | None:
            now = self._now()
            row = connection.execute(
                select(LeaseRow.owner, LeaseRow.token, LeaseRow.expires_at).where(LeaseRow.base_id == base.id)
            ).one_or_none()
            if row is not None and row.owner not in (None, owner) and row.expires_at > now:
                return None
            token = 1 if row is None else row.token + 1
            lease_values = {
                "owner": owner,
                "token": token,
                "lease_seconds": lease_seconds,
                "expires_at": now + timedelta(seconds=lease_seconds),
            }
            if row is None:
                connection.execute(insert(LeaseRow).values(base_id=base.id, **lease_values))
            else:
                connection.execute(update(LeaseRow).where(LeaseRow.base_id == base.id).values(**lease_values))
            return token

        return self._database.write(work)

    def renew(self, base: BaseModelRef, token: int) -> None:
        """Renew the lease for as long again. Raises LeaseLostError."""

        def work(connection: Connection) -> None:
            seconds = require_token(connection, base.id, token)
            connection.execute(
                update(LeaseRow)
                .where(LeaseRow.base_id == base.id)
                .values(expires_at=self._now() + timedelta(seconds=seconds))
            )

        self._database.write(work)

    def release(self, base: BaseModelRef, token: int) -> None:
        """Release the lease; its token is invalid afterwards. Raises LeaseLostError."""

        def work(connection: Connection) -> None:
            require_token(connection, base.id, token)
            connection.execute(
                update(LeaseRow).where(LeaseRow.base_id == base.id).values(owner=None, expires_at=self._now())
            )

        self._database.write(work)


def require_token(connection: Connection, base_id: int, token: int) -> float:
    """Raise LeaseLostError unless `token` holds the lineage now; returns the lease's length in seconds."""
    row = connection.execute(
        select(LeaseRow.owner, LeaseRow.token, LeaseRow.lease_seconds).where(LeaseRow.base_id == base_id)
    ).one_or_none()
    if row is None or row.owner is None or row.token != token:
        holder = "nobody" if row is None or row.owner is None else f"{row.owner} with token {row.token}"
        raise LeaseLostError(f"the trainer with token {token} may not write any more: {holder} holds the lineage now")
    return float(row.lease_seconds)

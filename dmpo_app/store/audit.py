"""The audit log of administrators: actor, act, subject, time. Append-only, in the transaction of the act."""

import builtins
from collections.abc import Callable, Iterable
from datetime import datetime

from sqlalchemy import Connection, insert, select

from dmpo_app.domain.campaign import AuditEntry
from dmpo_app.store import schema
from dmpo_app.store.db.database import Database


class Audit:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def record(self, actor: str, act: str, subject: str) -> None:
        """Record an act that changes nothing in the database."""
        self._database.write(lambda connection: record_act(connection, actor, act, subject, at=self._now()))

    def list(self, *, before: int | None = None, limit: int = 100) -> builtins.list[AuditEntry]:
        """List the acts, newest first; `before`: only those with a smaller id."""
        query = select(
            schema.AuditRow.id,
            schema.AuditRow.created_at,
            schema.AuditRow.actor,
            schema.AuditRow.act,
            schema.AuditRow.subject,
        )
        if before is not None:
            query = query.where(schema.AuditRow.id < before)
        with self._database.reader() as connection:
            rows = connection.execute(query.order_by(schema.AuditRow.id.desc()).limit(limit))
            return [AuditEntry(*row) for row in rows]


def record_act(connection: Connection, actor: str, act: str, subject: str, *, at: datetime) -> None:
    """Record an act as a part of its transaction."""
    connection.execute(insert(schema.AuditRow).values(created_at=at, actor=actor, act=act, subject=subject))


def format_ranges(ids: Iterable[int]) -> str:
    """Format numbers as ranges, each once: "1-3, 7"."""
    runs: list[list[int]] = []
    for number in sorted(set(ids)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)

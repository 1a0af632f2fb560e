"""Verdicts about versions and what was done. Append-only, written in the transaction of the act."""

import builtins
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, insert, select, text

from dmpo_app.domain.judging import Evidence, NewVerdict, Verdict, VerdictAction, VerdictRecord
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Purpose, Question
from dmpo_app.store import schema
from dmpo_app.store.db.database import Database

DECIDERS = {
    Evidence.DUELS: "duels",
    Evidence.HELD_OUT: "held-out votes",
    Evidence.CROSS_FITTING: "cross-fitting",
}
"""The actor of a decision, by the evidence it rests on: in the log of administrators and beside the live version."""

_Row = tuple[int, int, int, Verdict, Evidence, VerdictAction, dict[str, Any], datetime]
_VERDICTS: Select[*_Row] = select(
    schema.VerdictRow.id,
    schema.VerdictRow.version,
    schema.VerdictRow.other_version,
    schema.VerdictRow.verdict,
    schema.VerdictRow.evidence,
    schema.VerdictRow.action,
    schema.VerdictRow.numbers,
    schema.VerdictRow.created_at,
)
_COUNT_JUDGEMENTS = select(func.count(), func.coalesce(func.max(schema.VoteRow.id), 0)).where(
    schema.VoteRow.base_id == bindparam("base_id"),
    schema.VoteRow.question == Question.OVERALL,
    schema.VoteRow.purpose == Purpose.DUEL,
    text(schema.IS_LIVE),
)


class Verdicts:
    def __init__(self, database: Database) -> None:
        self._database = database

    def list(
        self, base: BaseModelRef, *, version: int | None = None, limit: int | None = None
    ) -> builtins.list[VerdictRecord]:
        """List the verdicts of a lineage, newest first; `version`: only those about it."""
        query = _VERDICTS.where(schema.VerdictRow.base_id == base.id).order_by(schema.VerdictRow.id.desc())
        if version is not None:
            query = query.where(schema.VerdictRow.version == version)
        with self._database.reader() as connection:
            return [VerdictRecord(*row) for row in connection.execute(query.limit(limit))]

    def latest(self, base: BaseModelRef, version: int) -> VerdictRecord | None:
        """The latest verdict about a version, if there is one."""
        return next(iter(self.list(base, version=version, limit=1)), None)

    def count_judgements(self, base: BaseModelRef) -> tuple[int, int]:
        """The number of live votes on duels and the id of the newest: a cheap sign that there are other ones now."""
        with self._database.reader() as connection:
            row = connection.execute(_COUNT_JUDGEMENTS, {"base_id": base.id}).one()
            return row[0], row[1]


def record_verdict(
    connection: Connection, base_id: int, verdict: NewVerdict, action: VerdictAction, *, at: datetime
) -> None:
    """Record a verdict and what is done as a part of its transaction."""
    connection.execute(
        insert(schema.VerdictRow).values(
            base_id=base_id,
            version=verdict.version,
            other_version=verdict.other_version,
            verdict=verdict.verdict,
            evidence=verdict.evidence,
            action=action,
            numbers=dict(verdict.numbers),
            created_at=at,
        )
    )

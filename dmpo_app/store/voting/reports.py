"""Reports of pairs that should not be shown, and the retirement of such pairs from the pool."""

import builtins
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select, text, update

from dmpo_app.domain.campaign import Report, ReportReason
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.errors import NotFoundError
from dmpo_app.store import schema
from dmpo_app.store.audit import record_act
from dmpo_app.store.db.database import Database
from dmpo_app.store.voting.assignments import close_open_assignments
from dmpo_app.store.voting.own_votes import get_own_assignment

_REPORTS: Select[*tuple[Any, ...]] = (
    select(
        schema.ReportRow.id,
        schema.ReportRow.pair_id,
        schema.AnnotatorRow.public_id,
        schema.ReportRow.reason,
        schema.ReportRow.text,
        schema.ReportRow.created_at,
        schema.ReportRow.cleared_at,
        schema.ReportRow.cleared_by,
        schema.PairRow.retired_at,
        schema.PromptRow.text.label("prompt"),
        schema.PairRow.image_a_id,
        schema.PairRow.image_b_id,
    )
    .join(schema.AnnotatorRow, schema.AnnotatorRow.id == schema.ReportRow.annotator_id)
    .join(schema.PairRow, schema.PairRow.id == schema.ReportRow.pair_id)
    .join(schema.PromptRow, schema.PromptRow.id == schema.PairRow.prompt_id)
)


class Reports:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def add(
        self,
        assignment_id: str,
        annotator_id: int,
        reason: ReportReason,
        report_text: str | None,
        *,
        reports_to_retire: int,
    ) -> Report:
        """Report the pair of an assignment.

        A second report of the same person changes nothing until the first is cleared. The pair is retired once
        `reports_to_retire` people's reports of it are open. Raises NotFoundError, ForbiddenError.
        """
        return self._database.write(
            partial(self._add, assignment_id, annotator_id, reason, report_text, reports_to_retire)
        )

    def clear(self, base: BaseModelRef, report_id: int, *, by: str, reports_to_retire: int) -> Report:
        """Clear a report, an act of `by`. The pair is back in the pool when too few others are open.

        Doing so twice changes nothing. Raises NotFoundError.
        """

        def work(connection: Connection) -> Report:
            report = _find(connection, base.id, report_id)
            if report.cleared_at is not None:
                return report
            now = self._now()
            clear_statement = (
                update(schema.ReportRow).where(schema.ReportRow.id == report_id).values(cleared_at=now, cleared_by=by)
            )
            connection.execute(clear_statement)
            if _num_open(connection, report.pair_id) < reports_to_retire:
                connection.execute(
                    update(schema.PairRow).where(schema.PairRow.id == report.pair_id).values(retired_at=None)
                )
            record_act(connection, by, "clear_report", f"report {report_id} of pair {report.pair_id}", at=now)
            return _find(connection, base.id, report_id)

        return self._database.write(work)

    def list(
        self, base: BaseModelRef, *, only_open: bool = False, before: int | None = None, limit: int = 100
    ) -> builtins.list[Report]:
        """List the reports, newest first; `before`: only those with a smaller id."""
        query = _REPORTS.where(schema.ReportRow.base_id == base.id)
        if only_open:
            query = query.where(text(schema.IS_UNCLEARED))
        if before is not None:
            query = query.where(schema.ReportRow.id < before)
        with self._database.reader() as connection:
            return [Report(*row) for row in connection.execute(query.order_by(schema.ReportRow.id.desc()).limit(limit))]

    def _add(
        self,
        assignment_id: str,
        annotator_id: int,
        reason: ReportReason,
        report_text: str | None,
        reports_to_retire: int,
        connection: Connection,
    ) -> Report:
        assignment = get_own_assignment(connection, assignment_id, annotator_id)
        own_report_query = select(schema.ReportRow.id).where(
            schema.ReportRow.pair_id == assignment.pair_id,
            schema.ReportRow.annotator_id == annotator_id,
            text(schema.IS_UNCLEARED),
        )
        report_id = connection.execute(own_report_query).scalar_one_or_none()
        if report_id is None:
            now = self._now()
            values = {"base_id": assignment.base_id, "pair_id": assignment.pair_id, "annotator_id": annotator_id}
            fields = {"reason": reason, "text": report_text, "created_at": now}
            report = insert(schema.ReportRow).values(**values, **fields).returning(schema.ReportRow.id)
            report_id = connection.execute(report).scalar_one()
            if _num_open(connection, assignment.pair_id) >= reports_to_retire:
                _retire(connection, assignment.pair_id, now)
        return _find(connection, assignment.base_id, report_id)


def _num_open(connection: Connection, pair_id: int) -> int:
    query = (
        select(func.count())
        .select_from(schema.ReportRow)
        .where(schema.ReportRow.pair_id == pair_id, text(schema.IS_UNCLEARED))
    )
    return connection.execute(query).scalar_one()


def _retire(connection: Connection, pair_id: int, now: datetime) -> None:
    """Retire a pair from the pool at once: nobody is assigned it any more, and open assignments are closed."""
    connection.execute(
        update(schema.PairRow)
        .where(schema.PairRow.id == pair_id, schema.PairRow.retired_at.is_(None))
        .values(retired_at=now)
    )
    close_open_assignments(connection, [pair_id])


def _find(connection: Connection, base_id: int, report_id: int) -> Report:
    query = _REPORTS.where(schema.ReportRow.base_id == base_id, schema.ReportRow.id == report_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no report {report_id}")
    return Report(*row)

"""Reports of pairs that should not be shown: from whom they hide a pair, and when they retire it for everybody."""

import builtins
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, exists, func, insert, or_, select, text, update
from sqlalchemy.orm import aliased

from dmpo_app.domain.campaign import Report, ReportReason, ReportRules
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.errors import ConflictError, NotFoundError
from dmpo_app.store import schema
from dmpo_app.store.audit import record_act
from dmpo_app.store.db.database import Database
from dmpo_app.store.voting.assignments import close_open_assignments
from dmpo_app.store.voting.own_votes import get_own_assignment

DEFAULT_RULES = ReportRules()
_CLEARED_AT_ONCE = 200
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
        schema.ReportRow.confirmed_at,
        schema.ReportRow.confirmed_by,
        schema.PairRow.hidden_at,
    )
    .join(schema.AnnotatorRow, schema.AnnotatorRow.id == schema.ReportRow.annotator_id)
    .join(schema.PairRow, schema.PairRow.id == schema.ReportRow.pair_id)
    .join(schema.PromptRow, schema.PromptRow.id == schema.PairRow.prompt_id)
)


class Reports:
    """Reports of pairs. What changes the standing of a report settles its pair anew, in the same transaction."""

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
        rules: ReportRules = DEFAULT_RULES,
        network: str | None = None,
    ) -> Report:
        """Report the pair of an assignment; it is not offered to this person again.

        A second report of the same person changes nothing until the first is cleared. `network`: a hash of where it
        came from. Raises NotFoundError, ForbiddenError.
        """

        def work(connection: Connection) -> Report:
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
                fields = {"reason": reason, "text": report_text, "created_at": now, "network": network}
                report = insert(schema.ReportRow).values(**values, **fields).returning(schema.ReportRow.id)
                report_id = connection.execute(report).scalar_one()
                spent = dict.fromkeys(schema.CLOSED_AS, schema.AssignmentState.SPENT)
                is_theirs = schema.AssignmentRow.annotator_id == annotator_id
                close_open_assignments(connection, [assignment.pair_id], is_theirs, closed_as=spent)
                settle_pairs(connection, [assignment.pair_id], rules, now)
            return _find(connection, assignment.base_id, report_id)

        return self._database.write(work)

    def clear(self, base: BaseModelRef, report_id: int, *, by: str, rules: ReportRules = DEFAULT_RULES) -> Report:
        """Clear a report, an act of `by`. The pair is back in the pool when too few others are open.

        Doing so twice changes nothing. Raises NotFoundError.
        """

        def work(connection: Connection) -> Report:
            report = _find(connection, base.id, report_id)
            if report.cleared_at is None:
                _clear(connection, schema.ReportRow.id == report_id, by, rules, self._now())
                subject = f"report {report_id} of pair {report.pair_id}"
                record_act(connection, by, "clear_report", subject, at=self._now())
            return _find(connection, base.id, report_id)

        return self._database.write(work)

    def clear_all(
        self, base: BaseModelRef, *, by: str, annotator_id: int | None = None, rules: ReportRules = DEFAULT_RULES
    ) -> int:
        """Clear every open report, or those of one annotator, by acts of `by`; returns how many.

        Confirmed reports stay: those are an administrator's word. So many at once, votes come in between.
        """
        condition = and_(schema.ReportRow.base_id == base.id, schema.ReportRow.confirmed_at.is_(None))
        if annotator_id is not None:
            condition = and_(condition, schema.ReportRow.annotator_id == annotator_id)

        def work(connection: Connection) -> int:
            some = (
                select(schema.ReportRow.id)
                .where(condition, text(schema.IS_UNCLEARED))
                .limit(_CLEARED_AT_ONCE)
                .correlate(None)
            )
            num_cleared = _clear(connection, schema.ReportRow.id.in_(some), by, rules, self._now())
            if num_cleared:
                whose = "" if annotator_id is None else f" of annotator {annotator_id}"
                record_act(connection, by, "clear_reports", f"{num_cleared} reports{whose}", at=self._now())
            return num_cleared

        num_cleared = 0
        while some := self._database.write(work):
            num_cleared += some
        return num_cleared

    def lineages_reported_by(self, annotator_id: int) -> builtins.list[BaseModelRef]:
        """List the lineages in which an annotator has open reports."""
        row = schema.BaseModelRow
        is_theirs = (schema.ReportRow.annotator_id == annotator_id, text(schema.IS_UNCLEARED))
        query = select(row.id, row.source, row.family, row.fingerprint).where(
            row.id.in_(select(schema.ReportRow.base_id).where(*is_theirs))
        )
        with self._database.reader() as connection:
            return [BaseModelRef(*row) for row in connection.execute(query)]

    def settle_reported_by(self, annotator_id: int, rules: Mapping[int, ReportRules]) -> None:
        """Settle the pairs that an annotator has open reports of, by the rules of their lineages."""
        self._database.write(lambda connection: settle_pairs_of(connection, annotator_id, rules, self._now()))

    def confirm(self, base: BaseModelRef, report_id: int, *, by: str, rules: ReportRules = DEFAULT_RULES) -> Report:
        """Confirm a report, an act of `by`: the pair is retired until this report is cleared.

        Doing so twice changes nothing. Raises NotFoundError, ConflictError for a report that was cleared.
        """

        def work(connection: Connection) -> Report:
            report = _find(connection, base.id, report_id)
            if report.cleared_at is not None:
                raise ConflictError(f"report {report_id} was cleared by {report.cleared_by}")
            if report.confirmed_at is None:
                now = self._now()
                stamp = update(schema.ReportRow).where(schema.ReportRow.id == report_id)
                connection.execute(stamp.values(confirmed_at=now, confirmed_by=by))
                settle_pairs(connection, [report.pair_id], rules, now)
                record_act(connection, by, "confirm_report", f"report {report_id} of pair {report.pair_id}", at=now)
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


def _clear(connection: Connection, condition: ColumnElement[bool], by: str, rules: ReportRules, now: datetime) -> int:
    """Clear the open reports that meet a condition and settle their pairs; returns how many there were."""
    statement = (
        update(schema.ReportRow)
        .where(condition, text(schema.IS_UNCLEARED))
        .values(cleared_at=now, cleared_by=by)
        .returning(schema.ReportRow.pair_id)
    )
    pair_ids = connection.execute(statement).scalars().all()
    settle_pairs(connection, set(pair_ids), rules, now)
    return len(pair_ids)


def settle_pairs_of(connection: Connection, annotator_id: int, rules: Mapping[int, ReportRules], now: datetime) -> None:
    """Settle the pairs that an annotator has open reports of; those of lineages without rules by the usual ones."""
    query = select(schema.ReportRow.base_id, schema.ReportRow.pair_id).where(
        schema.ReportRow.annotator_id == annotator_id, text(schema.IS_UNCLEARED)
    )
    pair_ids: dict[int, set[int]] = {}
    for row in connection.execute(query):
        pair_ids.setdefault(row.base_id, set()).add(row.pair_id)
    for base_id, ids in pair_ids.items():
        settle_pairs(connection, ids, rules.get(base_id, DEFAULT_RULES), now)


def settle_pairs(connection: Connection, pair_ids: Iterable[int], rules: ReportRules, now: datetime) -> None:
    """Retire, hide or bring back pairs, as the open reports of them ask for.

    Reports of struck annotators ask for nothing, unless an administrator has confirmed them. Newcomers hide no gold
    pair: those are few, seen by every session, and what newcomers are checked by.
    """
    for pair_id in sorted(pair_ids):
        pair = connection.execute(
            select(
                schema.PairRow.id,
                schema.PairRow.base_id,
                schema.PairRow.retired_at,
                schema.PairRow.hidden_at,
                schema.PairRow.gold,
            ).where(schema.PairRow.id == pair_id)
        ).one()
        reports = _standing_reports(connection, pair_id, has_newcomers=rules.established is not None)
        is_confirmed = any(report.confirmed_at is not None for report in reports)
        num_established = sum(rules.is_established(report.annotator_id) for report in reports)
        is_retired = is_confirmed or num_established >= rules.reports_to_retire
        voices = {report.network or report.annotator_id for report in reports}
        is_hidden = (
            not is_retired
            and rules.established is not None
            and pair.gold is None
            and len(voices) >= rules.reports_to_hide
            and (pair.hidden_at is not None or _may_hide_one_more(connection, pair.base_id, rules.max_hidden_share))
        )
        changes = {
            "retired_at": (pair.retired_at or now) if is_retired else None,
            "hidden_at": (pair.hidden_at or now) if is_hidden else None,
        }
        connection.execute(update(schema.PairRow).where(schema.PairRow.id == pair_id).values(**changes))
        if is_retired:
            close_open_assignments(connection, [pair_id])


def _standing_reports(
    connection: Connection, pair_id: int, *, has_newcomers: bool
) -> builtins.list[Row[*tuple[Any, ...]]]:
    """The reports that count. Where there are newcomers, nobody's whose report of this pair was cleared before."""
    query = (
        select(schema.ReportRow.annotator_id, schema.ReportRow.network, schema.ReportRow.confirmed_at)
        .join(schema.AnnotatorRow, schema.AnnotatorRow.id == schema.ReportRow.annotator_id)
        .where(
            schema.ReportRow.pair_id == pair_id,
            text(schema.IS_UNCLEARED),
            or_(schema.AnnotatorRow.struck_at.is_(None), schema.ReportRow.confirmed_at.is_not(None)),
        )
    )
    if has_newcomers:
        earlier = aliased(schema.ReportRow)
        was_cleared = exists().where(
            earlier.pair_id == schema.ReportRow.pair_id,
            earlier.annotator_id == schema.ReportRow.annotator_id,
            earlier.cleared_at.is_not(None),
        )
        query = query.where(or_(~was_cleared, schema.ReportRow.confirmed_at.is_not(None)))
    return list(connection.execute(query))


def _may_hide_one_more(connection: Connection, base_id: int, max_share: float) -> bool:
    in_lineage = schema.PairRow.base_id == base_id
    hidden = select(func.count()).select_from(schema.PairRow).where(in_lineage, text(schema.IS_HIDDEN))
    offered = select(func.count()).select_from(schema.PairRow).where(in_lineage, text(schema.IS_IN_POOL))
    return connection.execute(hidden).scalar_one() + 1 <= max_share * connection.execute(offered).scalar_one()


def _find(connection: Connection, base_id: int, report_id: int) -> Report:
    query = _REPORTS.where(schema.ReportRow.base_id == base_id, schema.ReportRow.id == report_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no report {report_id}")
    return Report(*row)

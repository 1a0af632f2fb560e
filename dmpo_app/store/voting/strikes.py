"""Striking annotators: nothing of theirs counts until they are restored. Nothing is deleted or changed by it.

Votes and reports of a struck annotator stay as they were given; what reads them leaves them out. Prompts they proposed
are retired at the very moment of the strike, which is how `restore` knows them.
"""

import builtins
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select, text, update

from dmpo_app.domain.campaign import ReportRules, StruckAnnotator
from dmpo_app.errors import NotFoundError
from dmpo_app.store import schema
from dmpo_app.store.audit import record_act
from dmpo_app.store.db.database import Database
from dmpo_app.store.voting.reports import settle_pairs_of


class Strikes:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def strike(self, annotator_id: int, *, by: str, rules: Mapping[int, ReportRules] | None = None) -> StruckAnnotator:
        """Strike an annotator, an act of `by`: votes and reports count no more, prompts they proposed are retired.

        `rules`: of the lineages in which they have reports, by id. Doing so twice changes nothing. Raises
        NotFoundError.
        """

        def work(connection: Connection) -> StruckAnnotator:
            if _find(connection, annotator_id).struck_at is None:
                now = self._now()
                _set_struck(connection, annotator_id, now)
                retirement = update(schema.PromptRow).where(
                    schema.PromptRow.id.in_(_proposals(annotator_id)), schema.PromptRow.retired_at.is_(None)
                )
                connection.execute(retirement.values(retired_at=now))
                settle_pairs_of(connection, annotator_id, rules or {}, now)
                struck = _summary(connection, _find(connection, annotator_id))
                record_act(connection, by, "strike_annotator", _subject(struck), at=now)
            return _summary(connection, _find(connection, annotator_id))

        return self._database.write(work)

    def restore(self, annotator_id: int, *, by: str) -> None:
        """Undo `strike`, an act of `by`. Raises NotFoundError.

        The pairs they reported are to be settled then, by rules that know them again (`Reports.settle_reported_by`).
        """

        def work(connection: Connection) -> None:
            row = _find(connection, annotator_id)
            if row.struck_at is None:
                return
            struck = _summary(connection, row)
            restoration = update(schema.PromptRow).where(
                schema.PromptRow.id.in_(_proposals(annotator_id)), schema.PromptRow.retired_at == row.struck_at
            )
            connection.execute(restoration.values(retired_at=None))
            _set_struck(connection, annotator_id, None)
            record_act(connection, by, "restore_annotator", _subject(struck), at=self._now())

        return self._database.write(work)

    def list(self) -> builtins.list[StruckAnnotator]:
        """List the struck annotators, the last one first."""
        query = _ANNOTATORS.where(text(schema.IS_STRUCK)).order_by(schema.AnnotatorRow.struck_at.desc())
        with self._database.reader() as connection:
            return [_summary(connection, row) for row in connection.execute(query).all()]


_ANNOTATORS = select(schema.AnnotatorRow.id, schema.AnnotatorRow.public_id, schema.AnnotatorRow.struck_at)


def _find(connection: Connection, annotator_id: int) -> Row[*tuple[Any, ...]]:
    row = connection.execute(_ANNOTATORS.where(schema.AnnotatorRow.id == annotator_id)).one_or_none()
    if row is None:
        raise NotFoundError("there is no such annotator in this home")
    return row


def _set_struck(connection: Connection, annotator_id: int, at: datetime | None) -> None:
    connection.execute(update(schema.AnnotatorRow).where(schema.AnnotatorRow.id == annotator_id).values(struck_at=at))


def _proposals(annotator_id: int) -> Any:
    return select(schema.PromptProposalRow.prompt_id).where(schema.PromptProposalRow.annotator_id == annotator_id)


def _summary(connection: Connection, row: Row[*tuple[Any, ...]]) -> StruckAnnotator:
    live_votes = select(func.count()).select_from(schema.VoteRow).where(schema.VoteRow.annotator_id == row.id)
    reports = select(func.count()).select_from(schema.ReportRow).where(schema.ReportRow.annotator_id == row.id)
    prompts = (
        select(func.count())
        .select_from(schema.PromptRow)
        .where(schema.PromptRow.id.in_(_proposals(row.id)), schema.PromptRow.retired_at == row.struck_at)
    )
    return StruckAnnotator(
        row.public_id,
        row.struck_at,
        votes=connection.execute(live_votes.where(text(schema.IS_LIVE))).scalar_one(),
        reports=connection.execute(reports.where(text(schema.IS_UNCLEARED))).scalar_one(),
        prompts=connection.execute(prompts).scalar_one(),
    )


def _subject(struck: StruckAnnotator) -> str:
    counts = f"{struck.votes} votes, {struck.reports} open reports, {struck.prompts} prompts"
    return f"annotator {struck.public_id}: {counts}"

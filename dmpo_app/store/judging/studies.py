"""Human studies between two versions: planned by an administrator, judged as duels, closed when there is enough."""

import builtins
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    ScalarSelect,
    Select,
    bindparam,
    exists,
    func,
    insert,
    select,
    text,
    update,
)

from dmpo_app.domain.judging import Comparison, NewStudy, OfferedStudy, StudyAnswer, StudyRecord
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Question
from dmpo_app.errors import BadInputError, ConflictError, NotFoundError
from dmpo_app.store import schema
from dmpo_app.store.audit import record_act
from dmpo_app.store.db.database import Database
from dmpo_app.store.judging.duel_offers import find_duels, needy_studies_query
from dmpo_app.store.judging.duels import judgement_from_row, judgements_query
from dmpo_app.store.voting.assignments import close_open_assignments
from dmpo_app.store.voting.offers import AssignmentRequest

MAX_RATERS = 100
MAX_STUDY_PAIRS = 10_000
MAX_NAME = 80


class Studies:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def create(self, base: BaseModelRef, study: NewStudy, *, by: str) -> StudyRecord:
        """Create a study; its duels are made and offered from now on. An act of `by`.

        Raises BadInputError for a plan that cannot be, NotFoundError for a version there is not, ConflictError for a
        name that is taken.
        """
        _check(study)

        def work(connection: Connection) -> StudyRecord:
            for version in (study.version_a, study.version_b):
                _require_version(connection, base.id, version)
            named = select(schema.StudyRow.id).where(
                schema.StudyRow.base_id == base.id, schema.StudyRow.name == study.name
            )
            if connection.execute(named).first() is not None:
                raise ConflictError(f"there is a study named {study.name!r} already; choose another name")
            at = self._now()
            values = {
                "base_id": base.id,
                "name": study.name,
                "version_a": study.version_a,
                "version_b": study.version_b,
                "questions": [question.value for question in study.questions],
                "num_raters": study.num_raters,
                "num_pairs": study.num_pairs,
                "created_by": by,
                "created_at": at,
            }
            study_id = connection.execute(
                insert(schema.StudyRow).values(**values).returning(schema.StudyRow.id)
            ).scalar_one()
            record_act(connection, by, "study_created", f"study {study.name}", at=at)
            return _get(connection, base.id, study_id)

        return self._database.write(work)

    def close(self, base: BaseModelRef, study_id: int, *, by: str) -> StudyRecord:
        """Close a study: its duels are offered to nobody any more, and those that somebody holds expire.

        Closing it again changes nothing.

        Raises NotFoundError.
        """

        def work(connection: Connection) -> StudyRecord:
            study = _get(connection, base.id, study_id)
            if study.closed_at is None:
                at = self._now()
                row = update(schema.StudyRow).where(schema.StudyRow.id == study_id)
                connection.execute(row.values(closed_at=at))
                pairs = select(schema.DuelRow.pair_id).where(schema.DuelRow.study_id == study_id)
                close_open_assignments(connection, list(connection.execute(pairs).scalars()))
                record_act(connection, by, "study_closed", f"study {study.plan.name}", at=at)
            return _get(connection, base.id, study_id)

        return self._database.write(work)

    def list(self, base: BaseModelRef, *, only_open: bool = False) -> builtins.list[StudyRecord]:
        """List the studies of a lineage, oldest first."""
        with self._database.reader() as connection:
            return _list(connection, base.id, only_open=only_open)

    def get(self, base: BaseModelRef, study_id: int) -> StudyRecord:
        """Get a study. Raises NotFoundError."""
        with self._database.reader() as connection:
            return _get(connection, base.id, study_id)

    def find_for(self, base: BaseModelRef, annotator_id: int) -> OfferedStudy | None:
        """Find the oldest open study that has a duel for this annotator, one they hold or one they have not judged."""
        with self._database.reader() as connection:
            open_studies = select(schema.StudyRow).where(
                schema.StudyRow.base_id == base.id, schema.StudyRow.closed_at.is_(None)
            )
            for row in connection.execute(open_studies.order_by(schema.StudyRow.id)):
                study = OfferedStudy(row.id, _plan_from_row(row))
                request = AssignmentRequest(base.id, annotator_id, study.plan.questions)
                parameters = {"study_id": study.id, "annotator_id": annotator_id, "now": self._now()}
                if connection.execute(_HELD, parameters).first() is not None:
                    return study
                most = study.plan.num_raters * len(study.plan.questions)
                if find_duels(connection, request, max_taken=most, count=1, study_id=study.id):
                    return study
        return None

    def list_needs(self, base: BaseModelRef) -> builtins.list[tuple[Comparison, int]]:
        """List the versions of the open studies that lack duels, oldest first, and how many each lacks."""
        with self._database.reader() as connection:
            rows = connection.execute(needy_studies_query(base.id))
            return [(Comparison(row.version_a, row.version_b), row.num_missing) for row in rows]

    def answers(self, base: BaseModelRef, study_id: int) -> builtins.list[StudyAnswer]:
        """List the answers of a study, in the order they were given, to every question.

        Skips and "both are bad" say nothing; those of struck annotators, and of duels that reports have retired, are
        left out.
        """
        query = judgements_query(base.id, schema.DuelRow.study_id == study_id, schema.VoteRow.question.in_(Question))
        with self._database.reader() as connection:
            rows = connection.execute(query)
            return [StudyAnswer(row.pair_id, judgement_from_row(row)) for row in rows]


_HELD = select(schema.AssignmentRow.id).where(
    exists().where(
        schema.DuelRow.pair_id == schema.AssignmentRow.pair_id, schema.DuelRow.study_id == bindparam("study_id")
    ),
    schema.AssignmentRow.annotator_id == bindparam("annotator_id"),
    text(schema.IS_OPEN),
    schema.AssignmentRow.expires_at > bindparam("now"),
)


def _check(study: NewStudy) -> None:
    name = study.name.strip()
    if not name or name != study.name or len(name) > MAX_NAME or not name.isprintable():
        raise BadInputError(f"the name of a study has 1 to {MAX_NAME} printable characters, not {study.name!r}")
    if study.version_a == study.version_b:
        raise BadInputError(f"a study compares two versions; both are {study.version_a}")
    if not study.questions or len(set(study.questions)) < len(study.questions):
        raise BadInputError("a study asks one question at least, and none twice: overall, appeal, fit")
    if not 1 <= study.num_raters <= MAX_RATERS:
        raise BadInputError(f"{study.num_raters} raters a pair are not between 1 and {MAX_RATERS}")
    if not 1 <= study.num_pairs <= MAX_STUDY_PAIRS:
        raise BadInputError(f"{study.num_pairs} pairs are not between 1 and {MAX_STUDY_PAIRS}")


def _require_version(connection: Connection, base_id: int, version: int) -> None:
    query = select(schema.AdapterRow.version).where(
        schema.AdapterRow.base_id == base_id, schema.AdapterRow.version == version
    )
    if connection.execute(query).first() is None:
        raise NotFoundError(f"there is no version {version}; a study compares two versions, 0 is the base model")


def _studies_query(base_id: int) -> Select[*tuple[Any, ...]]:
    def of_duels(value: ColumnElement[int]) -> ScalarSelect[int]:
        joined = (
            select(value).select_from(schema.DuelRow).join(schema.PairRow, schema.PairRow.id == schema.DuelRow.pair_id)
        )
        return joined.where(schema.DuelRow.study_id == schema.StudyRow.id).scalar_subquery()

    return (
        select(
            schema.StudyRow,
            of_duels(func.count()).label("num_made"),
            of_duels(func.coalesce(func.sum(schema.PairRow.num_votes), 0)).label("num_answers"),
        )
        .where(schema.StudyRow.base_id == base_id)
        .order_by(schema.StudyRow.id)
    )


def _list(connection: Connection, base_id: int, *, only_open: bool) -> builtins.list[StudyRecord]:
    query = _studies_query(base_id)
    if only_open:
        query = query.where(schema.StudyRow.closed_at.is_(None))
    return [_study_from_row(row) for row in connection.execute(query)]


def _get(connection: Connection, base_id: int, study_id: int) -> StudyRecord:
    row = connection.execute(_studies_query(base_id).where(schema.StudyRow.id == study_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no study {study_id}; `dmpo study list` names those there are")
    return _study_from_row(row)


def _plan_from_row(row: Row[*tuple[Any, ...]]) -> NewStudy:
    questions = tuple(Question(question) for question in row.questions)
    return NewStudy(row.name, row.version_a, row.version_b, questions, row.num_raters, row.num_pairs)


def _study_from_row(row: Row[*tuple[Any, ...]]) -> StudyRecord:
    counts = int(row.num_made), int(row.num_answers)
    return StudyRecord(row.id, _plan_from_row(row), row.created_by, row.created_at, row.closed_at, *counts)

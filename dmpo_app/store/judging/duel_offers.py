"""Duels for an annotator's next assignments: the versions that are compared now, and the duels of them to be judged."""

from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, func, or_, select

from dmpo_app.domain.judging import Comparison
from dmpo_app.domain.lineage import BASE_VERSION
from dmpo_app.domain.vote import Question
from dmpo_app.store import schema
from dmpo_app.store.judging.version_states import find_candidate, find_live_version, find_version_before
from dmpo_app.store.voting.offers import REPORTED_BY_THEM, AssignmentRequest, is_unseen


def find_comparisons(connection: Connection, base_id: int) -> list[Comparison]:
    """Find the versions that are to be compared now, as a part of a transaction; see `Duels.comparisons`."""
    live = find_live_version(connection, base_id)
    if (candidate := find_candidate(connection, base_id)) is not None:
        return [Comparison(candidate, live)]
    before = find_version_before(connection, base_id, live)
    if before is None:
        return []
    return [Comparison(live, other) for other in dict.fromkeys([before, BASE_VERSION])]


def find_duels(
    connection: Connection, request: AssignmentRequest, *, max_taken: int, count: int, study_id: int | None = None
) -> list[int]:
    """Find up to `count` duels that the annotator may be assigned, by pair id.

    They are of the versions compared now and of no study, or of the study `study_id`.

    They have not been asked all of the questions about them. The fewest judgements come first, among them the oldest.
    """
    parameters: dict[str, int] = {**request.parameters, "most": max_taken, "count": count}
    if study_id is not None:
        query = _duels_query(request.questions).where(schema.DuelRow.study_id == study_id)
        return list(connection.execute(query, parameters).scalars())
    comparisons = find_comparisons(connection, request.base_id)
    if not comparisons:
        return []
    of_versions = or_(*(is_between(one.version_a, one.version_b) for one in comparisons))
    query = _duels_query(request.questions).where(of_versions, schema.DuelRow.study_id.is_(None))
    return list(connection.execute(query, parameters).scalars())


def needy_studies_query(base_id: int) -> Select[*tuple[Any, ...]]:
    """Query of the open studies that lack duels, oldest first: id, versions, and how many are missing."""
    num_made = (
        select(func.count())
        .select_from(schema.DuelRow)
        .where(schema.DuelRow.study_id == schema.StudyRow.id)
        .scalar_subquery()
    )
    return (
        select(
            schema.StudyRow.id,
            schema.StudyRow.version_a,
            schema.StudyRow.version_b,
            (schema.StudyRow.num_pairs - num_made).label("num_missing"),
        )
        .where(
            schema.StudyRow.base_id == base_id,
            schema.StudyRow.closed_at.is_(None),
            num_made < schema.StudyRow.num_pairs,
        )
        .order_by(schema.StudyRow.id)
    )


def find_needy_study(connection: Connection, base_id: int, version_a: int, version_b: int) -> int | None:
    """Find the oldest open study of two versions that lacks duels, as a part of a transaction."""
    for row in connection.execute(needy_studies_query(base_id)):
        if {row.version_a, row.version_b} == {version_a, version_b}:
            return int(row.id)
    return None


@cache
def _duels_query(questions: tuple[Question, ...]) -> Select[*tuple[Any, ...]]:
    """Query of the duels that the annotator has not been asked all of these questions about."""
    return (
        select(schema.PairRow.id)
        .join(schema.DuelRow, schema.DuelRow.pair_id == schema.PairRow.id)
        .where(
            schema.DuelRow.base_id == bindparam("base_id"),
            schema.PairRow.num_taken < bindparam("most"),
            *may_be_shown(),
            ~REPORTED_BY_THEM,
            is_unseen(questions),
        )
        .order_by(schema.PairRow.num_taken, schema.PairRow.id)
        .limit(bindparam("count"))
    )


def is_between(one: int, other: int) -> ColumnElement[bool]:
    """Condition of the duels of two versions, whichever way round they are stored."""
    return or_(
        and_(schema.DuelRow.version_a == one, schema.DuelRow.version_b == other),
        and_(schema.DuelRow.version_a == other, schema.DuelRow.version_b == one),
    )


def may_be_shown() -> tuple[ColumnElement[bool], ...]:
    """Conditions of the duels that may be shown: their pairs are neither retired nor hidden nor damaged."""
    return (
        schema.PairRow.retired_at.is_(None),
        schema.PairRow.hidden_at.is_(None),
        schema.PairRow.damaged_at.is_(None),
    )

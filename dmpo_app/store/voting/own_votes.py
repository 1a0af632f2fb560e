"""A person's own votes: listing, counting and withdrawing them."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Row, bindparam, case, func, select, text, update

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import VoteCounts, VoteRecord, places_from_ranking
from dmpo_app.errors import ForbiddenError, NotFoundError
from dmpo_app.store import schema
from dmpo_app.store.db.database import Database
from dmpo_app.store.pairs.pairs import find_set_images
from dmpo_app.store.voting.assignments import image_ids_in_order
from dmpo_app.store.voting.vote_queries import ASSIGNMENT

_RECORDS = (
    select(
        schema.VoteRow.id,
        schema.PromptRow.text,
        schema.VoteRow.question,
        schema.VoteRow.choice,
        schema.VoteRow.strength,
        schema.VoteRow.comment,
        schema.VoteRow.elapsed_ms,
        schema.VoteRow.created_at,
        schema.VoteRow.undone_at,
        schema.VoteRow.withdrawn_at,
        schema.VoteRow.ranking,
        schema.AssignmentRow.a_on_left,
        schema.AssignmentRow.arrangement,
        schema.PairRow.id.label("pair_id"),
        schema.PairRow.image_a_id,
        schema.PairRow.image_b_id,
    )
    .join(schema.AssignmentRow, schema.AssignmentRow.id == schema.VoteRow.assignment_id)
    .join(schema.PairRow, schema.PairRow.id == schema.VoteRow.pair_id)
    .join(schema.PromptRow, schema.PromptRow.id == schema.PairRow.prompt_id)
)

_GONE = bindparam("gone", type_=BigInteger)
_UNCOUNT = (
    update(schema.PairRow)
    .where(schema.PairRow.id == bindparam("pair"))
    .values(num_votes=schema.PairRow.num_votes - _GONE, num_taken=schema.PairRow.num_taken - _GONE)
)


class OwnVotes:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def page(self, annotator_id: int, *, before: int | None = None, limit: int = 50) -> list[VoteRecord]:
        """A page of an annotator's votes, newest first, also undone ones; `before`: only those with a smaller id."""
        query = _RECORDS.where(schema.VoteRow.annotator_id == annotator_id)
        if before is not None:
            query = query.where(schema.VoteRow.id < before)
        with self._database.reader() as connection:
            rows = connection.execute(query.order_by(schema.VoteRow.id.desc()).limit(limit)).all()
            versions = _versions(connection, [row.id for row in rows])
            more = find_set_images(connection, [row.pair_id for row in rows if row.arrangement is not None])
        return [_record_from_row(row, more.get(row.pair_id, ()), versions[row.id]) for row in rows]

    def counts(self, annotator_id: int) -> VoteCounts:
        """Count an annotator's votes, of every lineage."""
        undone = func.sum(case((schema.VoteRow.undone_at.is_not(None), 1), else_=0))
        withdrawn = func.sum(case((schema.VoteRow.withdrawn_at.is_not(None), 1), else_=0))
        live = func.sum(case((text(schema.IS_LIVE), 1), else_=0))
        query = (
            select(schema.VoteRow.question, live, undone, withdrawn)
            .where(schema.VoteRow.annotator_id == annotator_id)
            .group_by(schema.VoteRow.question)
        )
        with self._database.reader() as connection:
            rows = connection.execute(query).all()
        return VoteCounts(
            live=sum(row[1] for row in rows),
            undone=sum(row[2] for row in rows),
            withdrawn=sum(row[3] for row in rows),
            by_question={row[0]: row[1] for row in rows},
        )

    def versions_trained_on(self, base: BaseModelRef, annotator_id: int) -> list[tuple[int, int]]:
        """(version, number of the annotator's votes it was trained on), oldest version first."""
        query = (
            select(schema.AdapterVoteRow.version, func.count())
            .join(schema.VoteRow, schema.VoteRow.id == schema.AdapterVoteRow.vote_id)
            .where(schema.VoteRow.annotator_id == annotator_id, schema.VoteRow.base_id == base.id)
            .group_by(schema.AdapterVoteRow.version)
            .order_by(schema.AdapterVoteRow.version)
        )
        with self._database.reader() as connection:
            return [(version, count) for version, count in connection.execute(query)]

    def withdraw(self, vote_id: int, annotator_id: int) -> bool:
        """Withdraw one vote: it stays on record, stamped, and no later round is trained on it.

        The pair does not come back to this person. False when the vote was not live. Raises NotFoundError,
        ForbiddenError.
        """

        def work(connection: Connection) -> bool:
            get_own_vote(connection, vote_id, annotator_id)
            return _withdraw(connection, schema.VoteRow.id == vote_id, self._now()) > 0

        return self._database.write(work)

    def withdraw_all(self, annotator_id: int) -> int:
        """Withdraw every live vote of an annotator, of every lineage; returns how many there were."""

        def work(connection: Connection) -> int:
            return _withdraw(connection, schema.VoteRow.annotator_id == annotator_id, self._now())

        return self._database.write(work)


def _withdraw(connection: Connection, condition: ColumnElement[bool], now: datetime) -> int:
    """Withdraw votes in a few statements, however many there are: others wait while this writes."""
    live_conditions = (condition, text(schema.IS_LIVE))
    per_pair = select(schema.VoteRow.pair_id, func.count()).where(*live_conditions).group_by(schema.VoteRow.pair_id)
    counts = [{"pair": pair_id, "gone": count} for pair_id, count in connection.execute(per_pair)]
    if not counts:
        return 0
    assignment_ids = select(schema.VoteRow.assignment_id).where(*live_conditions)
    close_assignments = (
        update(schema.AssignmentRow)
        .where(schema.AssignmentRow.id.in_(assignment_ids))
        .values(state=schema.AssignmentState.SPENT)
    )
    connection.execute(close_assignments)
    num_withdrawn = connection.execute(update(schema.VoteRow).where(*live_conditions).values(withdrawn_at=now)).rowcount
    connection.execute(_UNCOUNT, counts)
    return num_withdrawn


def _versions(connection: Connection, vote_ids: Sequence[int]) -> dict[int, tuple[int, ...]]:
    versions: dict[int, tuple[int, ...]] = defaultdict(tuple)
    query = (
        select(schema.AdapterVoteRow.vote_id, schema.AdapterVoteRow.version)
        .where(schema.AdapterVoteRow.vote_id.in_(vote_ids))
        .order_by(schema.AdapterVoteRow.version)
    )
    for vote_id, version in connection.execute(query):
        versions[vote_id] += (version,)
    return versions


def _record_from_row(row: Row[*tuple[Any, ...]], more: Sequence[int], versions: tuple[int, ...]) -> VoteRecord:
    left, right, *others = image_ids_in_order(row, more)
    return VoteRecord(
        vote_id=row.id,
        prompt=row.text,
        question=row.question,
        choice=row.choice,
        strength=row.strength,
        comment=row.comment,
        elapsed_ms=row.elapsed_ms,
        at=row.created_at,
        undone_at=row.undone_at,
        withdrawn_at=row.withdrawn_at,
        left_image_id=left,
        right_image_id=right,
        versions=versions,
        more_image_ids=tuple(others),
        order=None if row.ranking is None else places_from_ranking(row.ranking, row.arrangement),
    )


def get_own_assignment(connection: Connection, assignment_id: str, annotator_id: int) -> Row[*tuple[Any, ...]]:
    """Get an assignment that was issued to this annotator, as a row. Raises NotFoundError, ForbiddenError."""
    assignment = connection.execute(ASSIGNMENT, {"public_id": assignment_id}).one_or_none()
    if assignment is None:
        raise NotFoundError("there is no such assignment")
    if assignment.annotator_id != annotator_id:
        raise ForbiddenError("this assignment was issued to somebody else")
    return assignment


def get_own_vote(connection: Connection, vote_id: int, annotator_id: int) -> Row[*tuple[Any, ...]]:
    """Get a vote of this annotator, as a row. Raises NotFoundError, ForbiddenError."""
    columns = (
        schema.VoteRow.id,
        schema.VoteRow.annotator_id,
        schema.VoteRow.assignment_id,
        schema.VoteRow.pair_id,
        schema.VoteRow.undone_at,
        schema.VoteRow.withdrawn_at,
    )
    vote = connection.execute(select(*columns).where(schema.VoteRow.id == vote_id)).one_or_none()
    if vote is None:
        raise NotFoundError(f"there is no vote {vote_id}")
    if vote.annotator_id != annotator_id:
        raise ForbiddenError("this vote is somebody else's")
    return vote

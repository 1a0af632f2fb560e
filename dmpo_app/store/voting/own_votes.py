"""A person's own votes: what they gave, what came of them, and withdrawing them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Row, bindparam, case, func, select, text, update

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import VoteCounts, VoteRecord, places_of_order
from dmpo_app.store.db.database import Database
from dmpo_app.store.pairs.pairs import images_of_sets
from dmpo_app.store.schema import IS_LIVE, AdapterVoteRow, AssignmentRow, AssignmentState, PairRow, PromptRow, VoteRow
from dmpo_app.store.voting.assignments import shown_images
from dmpo_app.store.voting.votes import own_vote

_RECORDS = (
    select(
        VoteRow.id,
        PromptRow.text,
        VoteRow.question,
        VoteRow.choice,
        VoteRow.strength,
        VoteRow.comment,
        VoteRow.elapsed_ms,
        VoteRow.created_at,
        VoteRow.undone_at,
        VoteRow.withdrawn_at,
        VoteRow.ranking,
        AssignmentRow.a_on_left,
        AssignmentRow.arrangement,
        PairRow.id.label("pair_id"),
        PairRow.image_a_id,
        PairRow.image_b_id,
    )
    .join(AssignmentRow, AssignmentRow.id == VoteRow.assignment_id)
    .join(PairRow, PairRow.id == VoteRow.pair_id)
    .join(PromptRow, PromptRow.id == PairRow.prompt_id)
)

_GONE = bindparam("gone", type_=BigInteger)
_UNCOUNT = (
    update(PairRow)
    .where(PairRow.id == bindparam("pair"))
    .values(num_votes=PairRow.num_votes - _GONE, num_taken=PairRow.num_taken - _GONE)
)


class OwnVotes:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def page(self, annotator_id: int, *, before: int | None = None, limit: int = 50) -> list[VoteRecord]:
        """Every vote an annotator gave, newest first, also those taken back; `before`: only those with a smaller id."""
        query = _RECORDS.where(VoteRow.annotator_id == annotator_id)
        if before is not None:
            query = query.where(VoteRow.id < before)
        with self._database.reader() as connection:
            rows = connection.execute(query.order_by(VoteRow.id.desc()).limit(limit)).all()
            versions = _versions(connection, [row.id for row in rows])
            more = images_of_sets(connection, [row.pair_id for row in rows if row.arrangement is not None])
        return [_record_of(row, more.get(row.pair_id, ()), versions[row.id]) for row in rows]

    def counts(self, annotator_id: int) -> VoteCounts:
        """How many votes an annotator gave, of every lineage."""
        undone = func.sum(case((VoteRow.undone_at.is_not(None), 1), else_=0))
        withdrawn = func.sum(case((VoteRow.withdrawn_at.is_not(None), 1), else_=0))
        live = func.sum(case((text(IS_LIVE), 1), else_=0))
        query = (
            select(VoteRow.question, live, undone, withdrawn)
            .where(VoteRow.annotator_id == annotator_id)
            .group_by(VoteRow.question)
        )
        with self._database.reader() as connection:
            rows = connection.execute(query).all()
        return VoteCounts(
            live=sum(row[1] for row in rows),
            undone=sum(row[2] for row in rows),
            withdrawn=sum(row[3] for row in rows),
            by_question={row[0]: row[1] for row in rows},
        )

    def trained(self, base: BaseModelRef, annotator_id: int) -> list[tuple[int, int]]:
        """(version, how many of the annotator's votes it was trained on), oldest version first."""
        query = (
            select(AdapterVoteRow.version, func.count())
            .join(VoteRow, VoteRow.id == AdapterVoteRow.vote_id)
            .where(VoteRow.annotator_id == annotator_id, VoteRow.base_id == base.id)
            .group_by(AdapterVoteRow.version)
            .order_by(AdapterVoteRow.version)
        )
        with self._database.reader() as connection:
            return [(version, count) for version, count in connection.execute(query)]

    def withdraw(self, vote_id: int, annotator_id: int) -> bool:
        """Withdraw one vote: it stays on record, stamped, and no later round is trained on it. The pair does not come
        back to this person.

        False when it did not stand any more. Raises NotFound, NotYours.
        """

        def work(connection: Connection) -> bool:
            own_vote(connection, vote_id, annotator_id)
            return _withdraw(connection, VoteRow.id == vote_id, self._now()) > 0

        return self._database.write(work)

    def withdraw_all(self, annotator_id: int) -> int:
        """Withdraw every vote of an annotator that stands, of every lineage. Returns how many there were."""

        def work(connection: Connection) -> int:
            return _withdraw(connection, VoteRow.annotator_id == annotator_id, self._now())

        return self._database.write(work)


def _withdraw(connection: Connection, which: ColumnElement[bool], now: datetime) -> int:
    """In a few statements however many votes there are: others wait while this writes."""
    standing = (which, text(IS_LIVE))
    per_pair = select(VoteRow.pair_id, func.count()).where(*standing).group_by(VoteRow.pair_id)
    counts = [{"pair": pair_id, "gone": count} for pair_id, count in connection.execute(per_pair)]
    if not counts:
        return 0
    showings = select(VoteRow.assignment_id).where(*standing)
    spent = update(AssignmentRow).where(AssignmentRow.id.in_(showings)).values(state=AssignmentState.SPENT)
    connection.execute(spent)
    withdrawn = connection.execute(update(VoteRow).where(*standing).values(withdrawn_at=now)).rowcount
    connection.execute(_UNCOUNT, counts)
    return withdrawn


def _versions(connection: Connection, vote_ids: Sequence[int]) -> dict[int, tuple[int, ...]]:
    versions: dict[int, tuple[int, ...]] = defaultdict(tuple)
    query = (
        select(AdapterVoteRow.vote_id, AdapterVoteRow.version)
        .where(AdapterVoteRow.vote_id.in_(vote_ids))
        .order_by(AdapterVoteRow.version)
    )
    for vote_id, version in connection.execute(query):
        versions[vote_id] += (version,)
    return versions


def _record_of(row: Row[*tuple[Any, ...]], more: Sequence[int], versions: tuple[int, ...]) -> VoteRecord:
    left, right, *others = shown_images(row, more)
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
        order=None if row.ranking is None else places_of_order(row.ranking, row.arrangement),
    )

"""Votes: append-only answers to assignments, and what rounds want to know about them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import BigInteger, Connection, Row, bindparam, func, insert, select, text, type_coerce, update
from sqlalchemy.orm import aliased

from dmpo_app.domain import PREFERENCES, BaseModelRef, Choice, NewVotes, TakenVote, TrainingVote, outcome_of
from dmpo_app.errors import Conflict, Expired, NotFound, NotYours
from dmpo_app.store.column_types import MICROSECONDS_PER_HOUR, from_microseconds
from dmpo_app.store.database import Database
from dmpo_app.store.pairs import with_training_files
from dmpo_app.store.schema import (
    IS_LIVE,
    AssignmentRow,
    AssignmentState,
    ImageRow,
    PairRow,
    PromptEmbedsRow,
    PromptRow,
    RoundRow,
    VoteRow,
)

# Built once: building and hashing a statement would cost as much as running it.
_ASSIGNMENT = select(
    AssignmentRow.id,
    AssignmentRow.base_id,
    AssignmentRow.annotator_id,
    AssignmentRow.pair_id,
    AssignmentRow.a_on_left,
    AssignmentRow.state,
    AssignmentRow.expires_at,
).where(AssignmentRow.public_id == bindparam("public_id"))
_LIVE_VOTE = select(VoteRow.id, VoteRow.choice).where(VoteRow.assignment_id == bindparam("assignment"), text(IS_LIVE))
_INSERT = insert(VoteRow).returning(VoteRow.id)
_ANSWERED = (
    update(AssignmentRow).where(AssignmentRow.id == bindparam("assignment")).values(state=AssignmentState.ANSWERED)
)
_COUNT_VOTE = (
    update(PairRow)
    .where(PairRow.id == bindparam("pair"))
    .values(num_votes=PairRow.num_votes + bindparam("change", type_=BigInteger))
)
_WATERMARK = (
    select(func.coalesce(func.max(RoundRow.last_vote_id), 0))
    .where(RoundRow.base_id == bindparam("base_id"), RoundRow.finished_at.is_not(None))
    .scalar_subquery()
)
_IS_NEW_PREFERENCE = (
    VoteRow.base_id == bindparam("base_id"),
    VoteRow.outcome.in_(PREFERENCES),
    VoteRow.id > _WATERMARK,
    text(IS_LIVE),
)
_NEW_PREFERENCES = select(func.count(), func.min(VoteRow.id), func.max(VoteRow.id)).where(*_IS_NEW_PREFERENCE)
_COUNT_NEW = select(func.count()).select_from(
    select(VoteRow.id).where(*_IS_NEW_PREFERENCE).limit(bindparam("at_most")).subquery()
)


class Votes:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def take(self, assignment_id: str, annotator_id: int, choice: Choice, elapsed_ms: int) -> TakenVote:
        """Record an answer; it is on disk when this returns. The same answer again is not recorded again.

        Raises NotFound, NotYours, Conflict (another answer stands), Expired (there is none, and its time is up).
        """
        return self._database.write(partial(self._take, assignment_id, annotator_id, choice, elapsed_ms))

    def undo(self, vote_id: int, annotator_id: int) -> None:
        """Take back one's own latest vote; its assignment can be answered anew for as long as when it was issued.

        Doing so twice changes nothing. Raises NotFound, NotYours, Conflict when a later vote stands.
        """
        self._database.write(partial(self._undo, vote_id, annotator_id))

    def count(self, base: BaseModelRef, *, since: datetime | None = None) -> int:
        """Live votes of every choice, all or from a time on."""
        if since is None:  # the pairs keep count, and are fewer
            query = select(func.coalesce(func.sum(PairRow.num_votes), 0)).where(PairRow.base_id == base.id)
        else:
            query = (
                select(func.count())
                .select_from(VoteRow)
                .where(VoteRow.base_id == base.id, VoteRow.created_at >= since, text(IS_LIVE))
            )
        with self._database.reader() as connection:
            return connection.execute(query).scalar_one()

    def count_new_preferences(self, base: BaseModelRef, *, at_most: int) -> int:
        """`new_preferences(base).count`, but counting no further than `at_most`: cheap however many there are."""
        with self._database.reader() as connection:
            return connection.execute(_COUNT_NEW, {"base_id": base.id, "at_most": at_most}).scalar_one()

    def new_preferences(self, base: BaseModelRef) -> NewVotes:
        """The live preferences that no finished round has looked at."""
        with self._database.reader() as connection:
            count, first, last = connection.execute(_NEW_PREFERENCES, {"base_id": base.id}).one()
            if not count:
                return NewVotes(0, 0, None)
            oldest_at = connection.execute(select(VoteRow.created_at).where(VoteRow.id == first)).scalar_one()
        return NewVotes(count, last, oldest_at)

    def training_votes(self, base: BaseModelRef) -> list[TrainingVote]:
        """The live preferences, in the order they were given, with the files their pairs need."""
        a, b = aliased(ImageRow), aliased(ImageRow)
        columns = (
            VoteRow.id,
            VoteRow.pair_id,
            VoteRow.annotator_id,
            PromptRow.text,
            VoteRow.outcome,
            a.latents_sha256,
            b.latents_sha256,
            PromptEmbedsRow.sha256,
        )
        of_votes = select(*columns).select_from(VoteRow).join(PairRow, PairRow.id == VoteRow.pair_id)
        query = (
            with_training_files(of_votes, a, b)
            .where(VoteRow.base_id == base.id, VoteRow.undone_at.is_(None), VoteRow.outcome.in_(PREFERENCES))
            .order_by(VoteRow.id)
        )
        with self._database.reader() as connection:
            return [TrainingVote(*row) for row in connection.execute(query)]

    def per_hour(self, base: BaseModelRef) -> list[tuple[datetime, int]]:
        """Live votes by the hour (UTC) they were given in, oldest first; hours without any are left out."""
        hour = type_coerce(VoteRow.created_at, BigInteger) // MICROSECONDS_PER_HOUR
        query = (
            select(hour, func.count()).where(VoteRow.base_id == base.id, text(IS_LIVE)).group_by(hour).order_by(hour)
        )
        with self._database.reader() as connection:
            return [
                (from_microseconds(number * MICROSECONDS_PER_HOUR), count)
                for number, count in connection.execute(query)
            ]

    def _take(
        self, assignment_id: str, annotator_id: int, choice: Choice, elapsed_ms: int, connection: Connection
    ) -> TakenVote:
        assignment = connection.execute(_ASSIGNMENT, {"public_id": assignment_id}).one_or_none()
        if assignment is None:
            raise NotFound("there is no such assignment")
        if assignment.annotator_id != annotator_id:
            raise NotYours("this assignment was issued to somebody else")
        if assignment.state is AssignmentState.ANSWERED:
            return _same_again(connection, assignment, choice)
        now = self._now()
        if assignment.state in (AssignmentState.LAPSED, AssignmentState.SPENT) or assignment.expires_at <= now:
            raise Expired("the time to answer this pair is up; ask for another one")
        vote_id = connection.execute(
            _INSERT,
            {
                "assignment_id": assignment.id,
                "base_id": assignment.base_id,
                "annotator_id": annotator_id,
                "pair_id": assignment.pair_id,
                "choice": choice,
                "outcome": outcome_of(choice, a_on_left=assignment.a_on_left),
                "elapsed_ms": elapsed_ms,
                "created_at": now,
                "undone_at": None,
            },
        ).scalar_one()
        connection.execute(_ANSWERED, {"assignment": assignment.id})
        connection.execute(_COUNT_VOTE, {"pair": assignment.pair_id, "change": 1})
        return TakenVote(vote_id, created=True)

    def _undo(self, vote_id: int, annotator_id: int, connection: Connection) -> None:
        vote = connection.execute(
            select(VoteRow.annotator_id, VoteRow.assignment_id, VoteRow.pair_id, VoteRow.undone_at).where(
                VoteRow.id == vote_id
            )
        ).one_or_none()
        if vote is None:
            raise NotFound(f"there is no vote {vote_id}")
        if vote.annotator_id != annotator_id:
            raise NotYours("this vote is somebody else's")
        if vote.undone_at is not None:
            return
        latest = connection.execute(
            select(func.max(VoteRow.id)).where(VoteRow.annotator_id == annotator_id, text(IS_LIVE))
        ).scalar_one()
        if latest != vote_id:
            raise Conflict("only the latest vote can be taken back")
        now = self._now()
        connection.execute(update(VoteRow).where(VoteRow.id == vote_id).values(undone_at=now))
        connection.execute(_COUNT_VOTE, {"pair": vote.pair_id, "change": -1})
        _reopen(connection, vote.assignment_id, now)


def _reopen(connection: Connection, assignment_id: int, now: datetime) -> None:
    row = connection.execute(
        select(AssignmentRow.opened_at, AssignmentRow.expires_at).where(AssignmentRow.id == assignment_id)
    ).one()
    connection.execute(
        update(AssignmentRow)
        .where(AssignmentRow.id == assignment_id)
        .values(state=AssignmentState.REOPENED, opened_at=now, expires_at=now + (row.expires_at - row.opened_at))
    )


def _same_again(connection: Connection, assignment: Row[*tuple[Any, ...]], choice: Choice) -> TakenVote:
    standing = connection.execute(_LIVE_VOTE, {"assignment": assignment.id}).one()
    if standing.choice is not choice:
        raise Conflict(f"this pair was answered {standing.choice.value!r} already; take that back first")
    return TakenVote(standing.id, created=False)

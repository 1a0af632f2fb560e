"""Votes on assignments, append-only, and the queries of rounds about them."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import BigInteger, Connection, Row, exists, func, or_, select, text, type_coerce, update
from sqlalchemy.orm import aliased

from dmpo_app.domain.lineage import BaseModelRef, NewPreferences, TrainingVote
from dmpo_app.domain.vote import (
    Choice,
    Outcome,
    Purpose,
    Question,
    RecordedVote,
    Strength,
    SubmittedVote,
    choice_from_outcome,
    outcome_from_choice,
    outcome_from_ranking,
    ranking_from_places,
)
from dmpo_app.errors import BadInputError, ConflictError, ExpiredError
from dmpo_app.store import schema
from dmpo_app.store.db.column_types import MICROSECONDS_PER_HOUR, from_microseconds
from dmpo_app.store.db.database import Database
from dmpo_app.store.pairs.pairs import join_training_files
from dmpo_app.store.voting import vote_queries
from dmpo_app.store.voting.own_votes import get_own_assignment, get_own_vote

UNDOABLE = 10
"""The number of latest votes that can be undone; older ones can be withdrawn."""


class Votes:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def record(
        self,
        assignment_id: str,
        annotator_id: int,
        choice: Choice,
        elapsed_ms: int,
        strength: Strength | None = None,
        comment: str | None = None,
    ) -> RecordedVote:
        """Record a vote; it is on disk when this returns. The same vote again is not recorded again.

        Raises NotFoundError, ForbiddenError, ConflictError (another vote is live), ExpiredError (there is none, and the
        assignment has expired).
        """
        return self.submit(assignment_id, annotator_id, SubmittedVote(choice, strength, comment), elapsed_ms).result()

    def record_ranking(
        self,
        assignment_id: str,
        annotator_id: int,
        order: Sequence[int],
        elapsed_ms: int,
        comment: str | None = None,
    ) -> RecordedVote:
        """Record a ranking of the images of a set, as one vote: the places they were shown at, best first.

        Raises as `record` does, and BadInputError for a pair or an order that is none.
        """
        submitted = SubmittedVote(comment=comment, order=tuple(order))
        return self.submit(assignment_id, annotator_id, submitted, elapsed_ms).result()

    def submit(
        self,
        assignment_id: str,
        annotator_id: int,
        submitted: SubmittedVote,
        elapsed_ms: int,
        *,
        question: Question = Question.OVERALL,
        count_limit: int = 0,
    ) -> Future[RecordedVote]:
        """Submit a vote; the future is done once it is on disk, and raises as `record` and `record_ranking` do.

        `count_limit`: how far the new preferences on `question` are counted, in the same transaction.
        """

        def work(connection: Connection) -> RecordedVote:
            assignment = get_own_assignment(connection, assignment_id, annotator_id)
            recorded = self._record(connection, assignment, _vote_values(submitted, assignment), elapsed_ms)
            if count_limit <= 0:
                return recorded
            parameters = {"base_id": assignment.base_id, "question": question, "at_most": count_limit}
            return replace(
                recorded, new_preferences=connection.execute(vote_queries.COUNT_NEW, parameters).scalar_one()
            )

        return self._database.submit(work)

    def undo(self, vote_id: int, annotator_id: int) -> None:
        """Undo one's own latest vote; its assignment can be voted on anew for as long as when it was issued.

        Doing so twice changes nothing. Raises NotFoundError, ForbiddenError, ConflictError when a later vote is live or
        votes on UNDOABLE later assignments have been undone already.
        """
        self._database.write(partial(self._undo, vote_id, annotator_id))

    def count(self, base: BaseModelRef, *, since: datetime | None = None) -> int:
        """Count the live votes of every choice, all or from a time on."""
        if since is None:  # the pairs keep count, and are fewer
            query = select(func.coalesce(func.sum(schema.PairRow.num_votes), 0)).where(
                schema.PairRow.base_id == base.id
            )
        else:
            query = (
                select(func.count())
                .select_from(schema.VoteRow)
                .where(schema.VoteRow.base_id == base.id, schema.VoteRow.created_at >= since, text(schema.IS_LIVE))
            )
        with self._database.reader() as connection:
            return connection.execute(query).scalar_one()

    def count_new_preferences(self, base: BaseModelRef, *, at_most: int, question: Question = Question.OVERALL) -> int:
        """Count the new preferences up to `at_most`: cheap however many there are."""
        parameters = {"base_id": base.id, "question": question, "at_most": at_most}
        with self._database.reader() as connection:
            return connection.execute(vote_queries.COUNT_NEW, parameters).scalar_one()

    def count_trained_on(self, base: BaseModelRef, *, question: Question = Question.OVERALL) -> int:
        """Count the live preferences on a question that a round would learn from."""
        parameters = {"base_id": base.id, "question": question}
        with self._database.reader() as connection:
            return connection.execute(vote_queries.COUNT_TRAINED_ON, parameters).scalar_one()

    def new_preferences(self, base: BaseModelRef, *, question: Question = Question.OVERALL) -> NewPreferences:
        """The live preferences on a question that no finished round has used; those on retired pairs left out."""
        with self._database.reader() as connection:
            count, first, last = connection.execute(
                vote_queries.NEW_PREFERENCES, {"base_id": base.id, "question": question}
            ).one()
            if not count:
                return NewPreferences(0, 0, None)
            oldest_at = connection.execute(
                select(schema.VoteRow.created_at).where(schema.VoteRow.id == first)
            ).scalar_one()
        return NewPreferences(count, last, oldest_at)

    def training_votes(self, base: BaseModelRef, *, question: Question = Question.OVERALL) -> list[TrainingVote]:
        """List the live preferences on a question, in the order they were given, with the files of their pairs.

        Those on pairs that reports have retired, and those of struck annotators, are left out.
        """
        a, b = aliased(schema.ImageRow), aliased(schema.ImageRow)
        columns = (
            schema.VoteRow.id,
            schema.VoteRow.pair_id,
            schema.VoteRow.annotator_id,
            schema.PromptRow.text,
            schema.VoteRow.outcome,
            a.latents_sha256,
            b.latents_sha256,
            schema.PromptEmbedsRow.sha256,
            vote_queries.STRENGTH_COUNTS,
            schema.VoteRow.ranking,
        )
        of_votes = (
            select(*columns)
            .select_from(schema.VoteRow)
            .join(schema.PairRow, schema.PairRow.id == schema.VoteRow.pair_id)
        )
        query = (
            join_training_files(of_votes, a, b).where(*vote_queries.training_conditions()).order_by(schema.VoteRow.id)
        )
        parameters = {"base_id": base.id, "question": question}
        with self._database.reader() as connection:
            votes = [TrainingVote(*row) for row in connection.execute(query, parameters)]
            more = _find_set_latents(connection, base) if any(vote.ranking for vote in votes) else {}
        return [replace(vote, more_latents=more[vote.pair_id]) if vote.ranking else vote for vote in votes]

    def per_hour(self, base: BaseModelRef) -> list[tuple[datetime, int]]:
        """Count the live votes by hour (UTC), oldest first; hours without any are left out."""
        hour = type_coerce(schema.VoteRow.created_at, BigInteger) // MICROSECONDS_PER_HOUR
        query = (
            select(hour, func.count())
            .where(schema.VoteRow.base_id == base.id, text(schema.IS_LIVE))
            .group_by(hour)
            .order_by(hour)
        )
        with self._database.reader() as connection:
            return [
                (from_microseconds(number * MICROSECONDS_PER_HOUR), count)
                for number, count in connection.execute(query)
            ]

    def _record(
        self, connection: Connection, assignment: Row[*tuple[Any, ...]], values: dict[str, Any], elapsed_ms: int
    ) -> RecordedVote:
        if assignment.state is schema.AssignmentState.ANSWERED:
            return _repeat_vote(connection, assignment, values)
        now = self._now()
        if (
            assignment.state in (schema.AssignmentState.LAPSED, schema.AssignmentState.SPENT)
            or assignment.expires_at <= now
        ):
            raise ExpiredError("this pair can no longer be answered, its time is up; ask for another one")
        vote_id = connection.execute(
            vote_queries.INSERT_VOTE,
            {
                "assignment_id": assignment.id,
                "base_id": assignment.base_id,
                "annotator_id": assignment.annotator_id,
                "pair_id": assignment.pair_id,
                "question": assignment.question,
                "purpose": assignment.purpose,
                **{name: value for name, value in values.items() if value is not None},
                "outcome": outcome_from_choice(values["choice"], a_on_left=assignment.a_on_left),
                "elapsed_ms": elapsed_ms,
                "created_at": now,
            },
        ).scalar_one()
        connection.execute(vote_queries.MARK_ANSWERED, {"assignment": assignment.id})
        connection.execute(vote_queries.CHANGE_VOTE_COUNT, {"pair": assignment.pair_id, "change": 1})
        return RecordedVote(vote_id, is_new=True)

    def _undo(self, vote_id: int, annotator_id: int, connection: Connection) -> None:
        vote = get_own_vote(connection, vote_id, annotator_id)
        if vote.undone_at is not None:
            return
        if connection.execute(vote_queries.LATEST_LIVE, {"annotator_id": annotator_id}).scalar_one_or_none() != vote_id:
            raise ConflictError("only the latest vote can be taken back")
        if _num_assignments_after(connection, vote_id, annotator_id) >= UNDOABLE:
            raise ConflictError(f"only the last {UNDOABLE} votes can be taken back; older ones can be withdrawn")
        now = self._now()
        connection.execute(update(schema.VoteRow).where(schema.VoteRow.id == vote_id).values(undone_at=now))
        connection.execute(vote_queries.CHANGE_VOTE_COUNT, {"pair": vote.pair_id, "change": -1})
        _reopen(connection, vote.assignment_id, vote.pair_id, now)


def _vote_values(submitted: SubmittedVote, assignment: Row[*tuple[Any, ...]]) -> dict[str, Any]:
    """The values of a vote as it is recorded: a ranking in letters, with its outcome for images a and b."""
    arrangement, choice = assignment.arrangement, submitted.choice
    if choice is not None:
        if arrangement is not None and choice not in (Choice.SKIP, Choice.BOTH_BAD):
            raise BadInputError(
                f"this is a set of {len(arrangement)} images: it is answered by an order of all of them, by skip or by "
                f"both_bad, not by {choice.value}"
            )
        return {"choice": choice, "strength": submitted.strength, "comment": submitted.comment, "ranking": None}
    if arrangement is None:
        raise BadInputError("this is a pair: it is answered by a choice, an order is for sets of three or four images")
    ranking = ranking_from_places(submitted.order or (), arrangement)
    choice = choice_from_outcome(outcome_from_ranking(ranking), a_on_left=assignment.a_on_left)
    return {"choice": choice, "strength": None, "comment": submitted.comment, "ranking": ranking}


def _find_set_latents(connection: Connection, base: BaseModelRef) -> dict[int, tuple[str, ...]]:
    """Find the hashes of the latents of images c and d of every set of a lineage, by pair id."""
    query = (
        select(schema.SetImageRow.pair_id, schema.ImageRow.latents_sha256)
        .join(schema.ImageRow, schema.ImageRow.id == schema.SetImageRow.image_id)
        .where(schema.ImageRow.base_id == base.id)
        .order_by(schema.SetImageRow.pair_id, schema.SetImageRow.position)
    )
    hashes_by_pair: dict[int, tuple[str, ...]] = {}
    for pair_id, sha256 in connection.execute(query):
        if sha256 is not None:  # a set is not stored without latents
            hashes_by_pair[pair_id] = (*hashes_by_pair.get(pair_id, ()), sha256)
    return hashes_by_pair


def _num_assignments_after(connection: Connection, vote_id: int, annotator_id: int) -> int:
    """Count the assignments this annotator voted on later; voting on one anew several times counts once."""
    later = select(func.count(schema.VoteRow.assignment_id.distinct())).where(
        schema.VoteRow.annotator_id == annotator_id, schema.VoteRow.id > vote_id
    )
    return connection.execute(later).scalar_one()


def _reopen(connection: Connection, assignment_id: int, pair_id: int, now: datetime) -> None:
    reported_by_them = exists().where(
        schema.ReportRow.annotator_id == schema.AssignmentRow.annotator_id, schema.ReportRow.pair_id == pair_id
    )
    out_since = (schema.PairRow.retired_at, schema.PairRow.damaged_at, schema.PairRow.hidden_at)
    is_out = or_(*(moment.is_not(None) for moment in out_since), reported_by_them)
    row = connection.execute(
        select(schema.AssignmentRow.opened_at, schema.AssignmentRow.expires_at, is_out.label("is_out"))
        .join(schema.PairRow, schema.PairRow.id == schema.AssignmentRow.pair_id)
        .where(schema.AssignmentRow.id == assignment_id)
    ).one()
    changes: dict[str, Any] = {"state": schema.AssignmentState.SPENT}
    if not row.is_out:
        lifetime = row.expires_at - row.opened_at
        changes = {"state": schema.AssignmentState.REOPENED, "opened_at": now, "expires_at": now + lifetime}
    else:
        connection.execute(
            update(schema.PairRow).where(schema.PairRow.id == pair_id).values(num_taken=schema.PairRow.num_taken - 1)
        )
    connection.execute(update(schema.AssignmentRow).where(schema.AssignmentRow.id == assignment_id).values(**changes))


def _repeat_vote(connection: Connection, assignment: Row[*tuple[Any, ...]], values: dict[str, Any]) -> RecordedVote:
    live_vote = connection.execute(vote_queries.LIVE_VOTE, {"assignment": assignment.id}).one()
    if values != {name: getattr(live_vote, name) for name in ("choice", "strength", "comment", "ranking")}:
        recorded_choice = live_vote.choice.value if live_vote.ranking is None else "with an order"
        raise ConflictError(f"this pair was answered {recorded_choice!r} already; take that back first")
    return RecordedVote(live_vote.id, is_new=False)


@dataclass(frozen=True, slots=True)
class CastVote:
    """A live vote for the statistics of quality. `elapsed_ms` is 0 where the client did not say."""

    vote_id: int
    annotator_id: int
    pair_id: int
    outcome: Outcome
    a_on_left: bool
    elapsed_ms: int


class VoteRecords:
    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self, base: BaseModelRef, *, question: Question = Question.OVERALL) -> list[CastVote]:
        """List every live vote of a lineage on one question, skips included, in the order they were given.

        Those of struck annotators are left out, and those on duels, where nobody knows a better image.
        """
        query = (
            select(
                schema.VoteRow.id,
                schema.VoteRow.annotator_id,
                schema.VoteRow.pair_id,
                schema.VoteRow.outcome,
                schema.AssignmentRow.a_on_left,
                schema.VoteRow.elapsed_ms,
            )
            .join(schema.AssignmentRow, schema.AssignmentRow.id == schema.VoteRow.assignment_id)
            .where(
                schema.VoteRow.base_id == base.id,
                text(schema.IS_LIVE),
                schema.VoteRow.question == question,
                schema.VoteRow.purpose != Purpose.DUEL,
                vote_queries.is_not_struck(),
            )
            .order_by(schema.VoteRow.id)
        )
        with self._database.reader() as connection:
            return [CastVote(*row) for row in connection.execute(query)]

    def first_votes(self, base: BaseModelRef, *, question: Question = Question.OVERALL) -> dict[int, datetime]:
        """The time of each annotator's first live vote of a lineage on one question, by internal id."""
        first = func.min(schema.VoteRow.created_at, type_=schema.VoteRow.created_at.type)
        query = (
            select(schema.VoteRow.annotator_id, first)
            .where(schema.VoteRow.base_id == base.id, text(schema.IS_LIVE), schema.VoteRow.question == question)
            .group_by(schema.VoteRow.annotator_id)
        )
        with self._database.reader() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def public_ids(self, base: BaseModelRef) -> dict[int, str]:
        """Find the public ids of everybody who has voted in a lineage, by internal id."""
        voter_ids = select(schema.VoteRow.annotator_id).where(schema.VoteRow.base_id == base.id)
        query = select(schema.AnnotatorRow.id, schema.AnnotatorRow.public_id).where(
            schema.AnnotatorRow.id.in_(voter_ids)
        )
        with self._database.reader() as connection:
            return {row.id: row.public_id for row in connection.execute(query)}

"""Votes: append-only answers to assignments, and what rounds want to know about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import BigInteger, Connection, Row, func, select, text, type_coerce, update
from sqlalchemy.orm import aliased

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.round import NewVotes, TrainingVote
from dmpo_app.domain.vote import (
    Answer,
    Choice,
    Outcome,
    Question,
    Strength,
    TakenVote,
    better_of_first_two,
    order_of_places,
    outcome_of,
    side_of,
)
from dmpo_app.errors import BadInput, Conflict, Expired, NotFound, NotYours
from dmpo_app.store.db.column_types import MICROSECONDS_PER_HOUR, from_microseconds
from dmpo_app.store.db.database import Database
from dmpo_app.store.pairs.pairs import with_training_files
from dmpo_app.store.schema import (
    IS_LIVE,
    AnnotatorRow,
    AssignmentRow,
    AssignmentState,
    ImageRow,
    PairRow,
    PromptEmbedsRow,
    PromptRow,
    SetImageRow,
    VoteRow,
)
from dmpo_app.store.voting.vote_statements import (
    ANSWERED,
    ASSIGNMENT,
    COUNT_NEW,
    COUNT_VOTE,
    INSERT,
    LATEST_LIVE,
    LIVE_VOTE,
    NEW_PREFERENCES,
    STRENGTH_COUNTS,
    trained_on,
)

UNDOABLE = 10
"""The judgements back to which votes can be taken back; older ones can be withdrawn."""


class Votes:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def take(
        self,
        assignment_id: str,
        annotator_id: int,
        choice: Choice,
        elapsed_ms: int,
        strength: Strength | None = None,
        comment: str | None = None,
    ) -> TakenVote:
        """Record an answer; it is on disk when this returns. The same answer again is not recorded again.

        Raises NotFound, NotYours, Conflict (another answer stands), Expired (there is none, and its time is up).
        """
        return self.submit(assignment_id, annotator_id, Answer(choice, strength, comment), elapsed_ms).result()

    def rank(
        self,
        assignment_id: str,
        annotator_id: int,
        order: Sequence[int],
        elapsed_ms: int,
        comment: str | None = None,
    ) -> TakenVote:
        """Record an order of the images of a set, as one vote: the places they were shown at, best first.

        Raises as `take` does, and BadInput for a pair or an order that is none.
        """
        answer = Answer(comment=comment, order=tuple(order))
        return self.submit(assignment_id, annotator_id, answer, elapsed_ms).result()

    def submit(
        self,
        assignment_id: str,
        annotator_id: int,
        answer: Answer,
        elapsed_ms: int,
        *,
        question: Question = Question.OVERALL,
        count_to: int = 0,
    ) -> Future[TakenVote]:
        """Have an answer recorded; the future is done once it is on disk, and raises what `take` and `rank` raise.

        `count_to`: how far the new preferences on `question` are counted, in the same transaction.
        """

        def work(connection: Connection) -> TakenVote:
            assignment = own_assignment(connection, assignment_id, annotator_id)
            taken = self._take(connection, assignment, _in_letters(answer, assignment), elapsed_ms)
            if count_to <= 0:
                return taken
            wanted = {"base_id": assignment.base_id, "question": question, "at_most": count_to}
            return replace(taken, new_preferences=connection.execute(COUNT_NEW, wanted).scalar_one())

        return self._database.submit(work)

    def undo(self, vote_id: int, annotator_id: int) -> None:
        """Take back one's own latest vote; its assignment can be answered anew for as long as when it was issued.

        Doing so twice changes nothing. Raises NotFound, NotYours, Conflict when a later vote stands, or when votes on
        UNDOABLE later showings have been taken back already.
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

    def count_new_preferences(self, base: BaseModelRef, *, at_most: int, question: Question = Question.OVERALL) -> int:
        """`new_preferences(base).count`, but counting no further than `at_most`: cheap however many there are."""
        wanted = {"base_id": base.id, "question": question, "at_most": at_most}
        with self._database.reader() as connection:
            return connection.execute(COUNT_NEW, wanted).scalar_one()

    def new_preferences(self, base: BaseModelRef, *, question: Question = Question.OVERALL) -> NewVotes:
        """The live preferences on a question that no finished round has looked at; those on retired pairs left out."""
        with self._database.reader() as connection:
            count, first, last = connection.execute(NEW_PREFERENCES, {"base_id": base.id, "question": question}).one()
            if not count:
                return NewVotes(0, 0, None)
            oldest_at = connection.execute(select(VoteRow.created_at).where(VoteRow.id == first)).scalar_one()
        return NewVotes(count, last, oldest_at)

    def training_votes(self, base: BaseModelRef, *, question: Question = Question.OVERALL) -> list[TrainingVote]:
        """The live preferences on a question, in the order they were given, with the files their pairs need.

        Those on pairs that were reported and not cleared are left out.
        """
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
            STRENGTH_COUNTS,
            VoteRow.ranking,
        )
        of_votes = select(*columns).select_from(VoteRow).join(PairRow, PairRow.id == VoteRow.pair_id)
        query = with_training_files(of_votes, a, b).where(*trained_on()).order_by(VoteRow.id)
        wanted = {"base_id": base.id, "question": question}
        with self._database.reader() as connection:
            votes = [TrainingVote(*row) for row in connection.execute(query, wanted)]
            more = _latents_of_sets(connection, base) if any(vote.ranking for vote in votes) else {}
        return [replace(vote, more_latents=more[vote.pair_id]) if vote.ranking else vote for vote in votes]

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
        self, connection: Connection, assignment: Row[*tuple[Any, ...]], said: dict[str, Any], elapsed_ms: int
    ) -> TakenVote:
        if assignment.state is AssignmentState.ANSWERED:
            return _same_again(connection, assignment, said)
        now = self._now()
        if assignment.state in (AssignmentState.LAPSED, AssignmentState.SPENT) or assignment.expires_at <= now:
            raise Expired("this pair can no longer be answered, its time is up; ask for another one")
        vote_id = connection.execute(
            INSERT,
            {
                "assignment_id": assignment.id,
                "base_id": assignment.base_id,
                "annotator_id": assignment.annotator_id,
                "pair_id": assignment.pair_id,
                "question": assignment.question,
                "purpose": assignment.purpose,
                **{name: value for name, value in said.items() if value is not None},
                "outcome": outcome_of(said["choice"], a_on_left=assignment.a_on_left),
                "elapsed_ms": elapsed_ms,
                "created_at": now,
            },
        ).scalar_one()
        connection.execute(ANSWERED, {"assignment": assignment.id})
        connection.execute(COUNT_VOTE, {"pair": assignment.pair_id, "change": 1})
        return TakenVote(vote_id, created=True)

    def _undo(self, vote_id: int, annotator_id: int, connection: Connection) -> None:
        vote = own_vote(connection, vote_id, annotator_id)
        if vote.undone_at is not None:
            return
        if connection.execute(LATEST_LIVE, {"annotator_id": annotator_id}).scalar_one_or_none() != vote_id:
            raise Conflict("only the latest vote can be taken back")
        if _num_showings_after(connection, vote_id, annotator_id) >= UNDOABLE:
            raise Conflict(f"only the last {UNDOABLE} votes can be taken back; older ones can be withdrawn")
        now = self._now()
        connection.execute(update(VoteRow).where(VoteRow.id == vote_id).values(undone_at=now))
        connection.execute(COUNT_VOTE, {"pair": vote.pair_id, "change": -1})
        _reopen(connection, vote.assignment_id, vote.pair_id, now)


def _in_letters(answer: Answer, assignment: Row[*tuple[Any, ...]]) -> dict[str, Any]:
    """An answer as it is recorded: an order in letters, with what it says of images a and b."""
    arrangement, choice = assignment.arrangement, answer.choice
    if choice is not None:
        if arrangement is not None and choice not in (Choice.SKIP, Choice.BOTH_BAD):
            raise BadInput(
                f"this is a set of {len(arrangement)} images: it is answered by an order of all of them, by skip or by "
                f"both_bad, not by {choice.value}"
            )
        return {"choice": choice, "strength": answer.strength, "comment": answer.comment, "ranking": None}
    if arrangement is None:
        raise BadInput("this is a pair: it is answered by a choice, an order is for sets of three or four images")
    ranking = order_of_places(answer.order or (), arrangement)
    choice = side_of(better_of_first_two(ranking), a_on_left=assignment.a_on_left)
    return {"choice": choice, "strength": None, "comment": answer.comment, "ranking": ranking}


def _latents_of_sets(connection: Connection, base: BaseModelRef) -> dict[int, tuple[str, ...]]:
    """The hashes of the latents of images c and d of every set of a lineage, by pair id."""
    query = (
        select(SetImageRow.pair_id, ImageRow.latents_sha256)
        .join(ImageRow, ImageRow.id == SetImageRow.image_id)
        .where(ImageRow.base_id == base.id)
        .order_by(SetImageRow.pair_id, SetImageRow.position)
    )
    found: dict[int, tuple[str, ...]] = {}
    for pair_id, sha256 in connection.execute(query):
        if sha256 is not None:  # a set is not stored without latents
            found[pair_id] = (*found.get(pair_id, ()), sha256)
    return found


def own_assignment(connection: Connection, assignment_id: str, annotator_id: int) -> Row[*tuple[Any, ...]]:
    """An assignment that was issued to this annotator, as a row. Raises NotFound, NotYours."""
    assignment = connection.execute(ASSIGNMENT, {"public_id": assignment_id}).one_or_none()
    if assignment is None:
        raise NotFound("there is no such assignment")
    if assignment.annotator_id != annotator_id:
        raise NotYours("this assignment was issued to somebody else")
    return assignment


def own_vote(connection: Connection, vote_id: int, annotator_id: int) -> Row[*tuple[Any, ...]]:
    """A vote of this annotator, as a row. Raises NotFound, NotYours."""
    columns = (
        VoteRow.id,
        VoteRow.annotator_id,
        VoteRow.assignment_id,
        VoteRow.pair_id,
        VoteRow.undone_at,
        VoteRow.withdrawn_at,
    )
    vote = connection.execute(select(*columns).where(VoteRow.id == vote_id)).one_or_none()
    if vote is None:
        raise NotFound(f"there is no vote {vote_id}")
    if vote.annotator_id != annotator_id:
        raise NotYours("this vote is somebody else's")
    return vote


def _num_showings_after(connection: Connection, vote_id: int, annotator_id: int) -> int:
    """The showings this annotator answered later; judging one anew several times counts once."""
    later = select(func.count(VoteRow.assignment_id.distinct())).where(
        VoteRow.annotator_id == annotator_id, VoteRow.id > vote_id
    )
    return connection.execute(later).scalar_one()


def _reopen(connection: Connection, assignment_id: int, pair_id: int, now: datetime) -> None:
    row = connection.execute(
        select(AssignmentRow.opened_at, AssignmentRow.expires_at, PairRow.retired_at)
        .join(PairRow, PairRow.id == AssignmentRow.pair_id)
        .where(AssignmentRow.id == assignment_id)
    ).one()
    changes: dict[str, Any] = {"state": AssignmentState.SPENT}
    if row.retired_at is None:
        lifetime = row.expires_at - row.opened_at
        changes = {"state": AssignmentState.REOPENED, "opened_at": now, "expires_at": now + lifetime}
    else:
        connection.execute(update(PairRow).where(PairRow.id == pair_id).values(num_taken=PairRow.num_taken - 1))
    connection.execute(update(AssignmentRow).where(AssignmentRow.id == assignment_id).values(**changes))


def _same_again(connection: Connection, assignment: Row[*tuple[Any, ...]], said: dict[str, Any]) -> TakenVote:
    standing = connection.execute(LIVE_VOTE, {"assignment": assignment.id}).one()
    if said != {name: getattr(standing, name) for name in ("choice", "strength", "comment", "ranking")}:
        before = standing.choice.value if standing.ranking is None else "with an order"
        raise Conflict(f"this pair was answered {before!r} already; take that back first")
    return TakenVote(standing.id, created=False)


@dataclass(frozen=True, slots=True)
class CastVote:
    """One live vote. `elapsed_ms` is 0 where the client did not say."""

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
        """Every live vote of a lineage on one question, skips included, in the order they were given."""
        query = (
            select(
                VoteRow.id,
                VoteRow.annotator_id,
                VoteRow.pair_id,
                VoteRow.outcome,
                AssignmentRow.a_on_left,
                VoteRow.elapsed_ms,
            )
            .join(AssignmentRow, AssignmentRow.id == VoteRow.assignment_id)
            .where(VoteRow.base_id == base.id, text(IS_LIVE), VoteRow.question == question)
            .order_by(VoteRow.id)
        )
        with self._database.reader() as connection:
            return [CastVote(*row) for row in connection.execute(query)]

    def public_ids(self, base: BaseModelRef) -> dict[int, str]:
        """The public ids of everybody who has voted in a lineage, by internal id."""
        voted = select(VoteRow.annotator_id).where(VoteRow.base_id == base.id)
        query = select(AnnotatorRow.id, AnnotatorRow.public_id).where(AnnotatorRow.id.in_(voted))
        with self._database.reader() as connection:
            return {row.id: row.public_id for row in connection.execute(query)}

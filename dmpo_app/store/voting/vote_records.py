"""Votes as they were given: who, on what, on which side, how fast. What the quality of votes is computed from."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select, text

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Outcome, Question
from dmpo_app.store.db.database import Database
from dmpo_app.store.schema import IS_LIVE, AnnotatorRow, AssignmentRow, VoteRow


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

"""Assignments: which pair is shown to whom, and for how long it can be answered."""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, exists, insert, select, text, update

from dmpo_app.domain import Assignment, BaseModelRef, Question
from dmpo_app.errors import NotFound
from dmpo_app.store.database import Database
from dmpo_app.store.schema import (
    CLOSED_AS,
    IS_IN_POOL,
    IS_OPEN,
    IS_SEEN,
    AssignmentRow,
    AssignmentState,
    PairRow,
    PromptRow,
)

# Built once: building and hashing a statement would cost as much as running it.
_SHOWINGS: Select[*tuple[Any, ...]] = (
    select(
        AssignmentRow.public_id,
        AssignmentRow.annotator_id,
        AssignmentRow.pair_id,
        PromptRow.text,
        PairRow.image_a_id,
        PairRow.image_b_id,
        AssignmentRow.a_on_left,
        AssignmentRow.question,
        AssignmentRow.expires_at,
    )
    .join(PairRow, PairRow.id == AssignmentRow.pair_id)
    .join(PromptRow, PromptRow.id == PairRow.prompt_id)
)
_ONE = _SHOWINGS.where(AssignmentRow.public_id == bindparam("public_id"))


@cache
def open_of(questions: tuple[Question, ...]) -> Select[*tuple[Any, ...]]:
    """What an annotator has open of these questions; takes `annotator_id`, `base_id` and `now`."""
    return _SHOWINGS.where(
        text(IS_OPEN),
        AssignmentRow.annotator_id == bindparam("annotator_id"),
        AssignmentRow.base_id == bindparam("base_id"),
        AssignmentRow.question.in_(questions),
        AssignmentRow.expires_at > bindparam("now"),
    ).order_by(AssignmentRow.id)


@cache
def offer(questions: tuple[Question, ...]) -> Select[*tuple[Any, ...]]:
    """The pairs to show next, of which an annotator lacks one of these questions; takes `annotator_id`, `base_id` and
    `count`."""
    seen = [
        exists().where(
            AssignmentRow.annotator_id == bindparam("annotator_id"),
            AssignmentRow.pair_id == PairRow.id,
            AssignmentRow.question == question,
            text(IS_SEEN),
        )
        for question in questions
    ]
    return (
        select(PairRow.id)
        .where(PairRow.base_id == bindparam("base_id"), text(IS_IN_POOL), ~and_(*seen))
        .order_by(PairRow.num_taken, PairRow.adapter_version.desc(), PairRow.id)
        .limit(bindparam("count"))
    )


_LAPSE = {
    before: (
        update(AssignmentRow)
        .where(
            text(f"{IS_OPEN} AND state = '{before}'"),
            AssignmentRow.expires_at <= bindparam("now"),
        )
        .values(state=after)
        .returning(AssignmentRow.pair_id)
    )
    for before, after in CLOSED_AS.items()
}


class Assignments:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def issue(
        self,
        base: BaseModelRef,
        annotator_id: int,
        count: int,
        *,
        rng: random.Random,
        lifetime: timedelta,
        questions: Sequence[Question] = (Question.OVERALL,),
    ) -> list[Assignment]:
        """What this annotator has open, oldest first, filled up to `count`. Fewer when they have seen everything.

        Pairs with the fewest live votes and open assignments come first, among them those of the newest version, among
        them the oldest; retired ones not at all. Every question about a pair is an assignment of its own, one after
        another in the order of `questions`. Which image stands left is drawn from `rng` for the pair and recorded.
        """
        asked = tuple(questions)
        with self._database.reader() as connection:
            held = self._open(connection, base, annotator_id, asked, self._now())
        if len(held) >= count:
            return held[:count]
        work = partial(self._issue, base, annotator_id, count, rng=rng, lifetime=lifetime, questions=asked)
        return self._database.write(work)

    def get(self, assignment_id: str) -> Assignment:
        """Raises NotFound."""
        with self._database.reader() as connection:
            row = connection.execute(_ONE, {"public_id": assignment_id}).one_or_none()
        if row is None:
            raise NotFound("there is no such assignment")
        return _assignment_of(row)

    def _issue(
        self,
        base: BaseModelRef,
        annotator_id: int,
        count: int,
        connection: Connection,
        *,
        rng: random.Random,
        lifetime: timedelta,
        questions: tuple[Question, ...],
    ) -> list[Assignment]:
        now = self._now()
        release_expired(connection, now)
        held = self._open(connection, base, annotator_id, questions, now)
        missing = count - len(held)
        if missing <= 0:
            return held[:count]
        wanted = {"base_id": base.id, "annotator_id": annotator_id, "count": missing}
        pair_ids = list(connection.execute(offer(questions), wanted).scalars())
        showings = _showings(connection, annotator_id, pair_ids, questions, missing)
        if not showings:
            return held
        times = {"created_at": now, "opened_at": now, "expires_at": now + lifetime}
        rows = [
            {
                "public_id": secrets.token_urlsafe(18),
                "base_id": base.id,
                "annotator_id": annotator_id,
                "pair_id": pair_id,
                "question": question,
                "a_on_left": a_on_left,
                "state": AssignmentState.OPEN,
                **times,
            }
            for pair_id, asked in showings.items()
            for a_on_left in [rng.random() < 0.5]
            for question in asked
        ]
        connection.execute(insert(AssignmentRow), rows)
        _claim(connection, {pair_id: len(asked) for pair_id, asked in showings.items()})
        return self._open(connection, base, annotator_id, questions, now)[:count]

    def _open(
        self,
        connection: Connection,
        base: BaseModelRef,
        annotator_id: int,
        questions: tuple[Question, ...],
        now: datetime,
    ) -> list[Assignment]:
        wanted = {"base_id": base.id, "annotator_id": annotator_id, "now": now}
        return [_assignment_of(row) for row in connection.execute(open_of(questions), wanted)]


def _showings(
    connection: Connection, annotator_id: int, pair_ids: Sequence[int], questions: tuple[Question, ...], missing: int
) -> dict[int, tuple[Question, ...]]:
    """By pair, the questions to ask about it: whole pairs, until there are `missing` questions or more."""
    if len(questions) == 1:
        return dict.fromkeys(pair_ids, questions)
    query = select(AssignmentRow.pair_id, AssignmentRow.question).where(
        AssignmentRow.annotator_id == annotator_id, AssignmentRow.pair_id.in_(pair_ids), text(IS_SEEN)
    )
    seen = {(row.pair_id, row.question) for row in connection.execute(query)}
    showings: dict[int, tuple[Question, ...]] = {}
    for pair_id in pair_ids:
        if missing <= 0:
            break
        showings[pair_id] = tuple(question for question in questions if (pair_id, question) not in seen)
        missing -= len(showings[pair_id])
    return showings


def _claim(connection: Connection, claims: Mapping[int, int]) -> None:
    for number in set(claims.values()):
        pair_ids = [pair_id for pair_id, claimed in claims.items() if claimed == number]
        taken = update(PairRow).where(PairRow.id.in_(pair_ids)).values(num_taken=PairRow.num_taken + number)
        connection.execute(taken)


def release_expired(connection: Connection, now: datetime) -> None:
    """Close the open assignments whose time is up and give their claims on pairs back."""
    released: Counter[int] = Counter()
    for statement in _LAPSE.values():
        released.update(connection.execute(statement, {"now": now}).scalars())
    for pair_id, claims in released.items():
        connection.execute(update(PairRow).where(PairRow.id == pair_id).values(num_taken=PairRow.num_taken - claims))


def _assignment_of(row: Row[*tuple[Any, ...]]) -> Assignment:
    left, right = row.image_a_id, row.image_b_id
    if not row.a_on_left:
        left, right = right, left
    return Assignment(
        id=row.public_id,
        annotator_id=row.annotator_id,
        pair_id=row.pair_id,
        prompt=row.text,
        left_image_id=left,
        right_image_id=right,
        a_on_left=row.a_on_left,
        question=row.question,
        expires_at=row.expires_at,
    )

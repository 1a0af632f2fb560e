"""Assignments: which pair is shown to whom, and for how long it can be answered."""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any

from sqlalchemy import BigInteger, Connection, Row, Select, bindparam, insert, select, text, update

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.pair_choice import Offering, Purpose
from dmpo_app.domain.vote import LETTERS, PAIR_SIZE, Assignment, Question
from dmpo_app.errors import NotFound
from dmpo_app.store.db.database import Database
from dmpo_app.store.pairs.pairs import images_of_sets
from dmpo_app.store.schema import CLOSED_AS, IS_OPEN, IS_SEEN, AssignmentRow, AssignmentState, PairRow, PromptRow
from dmpo_app.store.voting.offers import Asker, candidates, gold_pairs, repeatable

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
        AssignmentRow.arrangement,
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


_INSERT = insert(AssignmentRow)
_CLAIM = (
    update(PairRow)
    .where(PairRow.id == bindparam("pair"))
    .values(num_taken=PairRow.num_taken + bindparam("claims", type_=BigInteger))
)

_AS_THEY_COME = Offering()


@dataclass(frozen=True, slots=True)
class _Showing:
    pair_id: int
    questions: tuple[Question, ...]
    a_on_left: bool
    purpose: Purpose = Purpose.VOTE
    arrangement: str | None = None

    @classmethod
    def drawn(
        cls, pair_id: int, asker: Asker, questions: tuple[Question, ...], rng: random.Random, purpose: Purpose
    ) -> _Showing:
        """Images at places drawn by lot: the sides of a pair, the arrangement of a set."""
        if asker.num_images == PAIR_SIZE:
            return cls(pair_id, questions, rng.random() < 0.5, purpose)
        letters = LETTERS[: asker.num_images]
        return cls.arranged(pair_id, questions, "".join(rng.sample(letters, len(letters))), purpose)

    @classmethod
    def arranged(cls, pair_id: int, questions: tuple[Question, ...], arrangement: str, purpose: Purpose) -> _Showing:
        """A set as it is arranged."""
        return cls(pair_id, questions, arrangement.index("a") < arrangement.index("b"), purpose, arrangement)


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
        offering: Offering = _AS_THEY_COME,
    ) -> Future[list[Assignment]]:
        """What this annotator has open, oldest first, filled up to `count`. Fewer when they have seen everything.

        Pairs with the fewest live votes and open assignments come first, among them those of the newest version, among
        them the oldest; retired ones not at all. `offering` may say otherwise, and mix in what is not to be learnt
        from. All is decided in one transaction, so that nobody is offered what another one was just given. Every
        question about a pair is an assignment of its own, one after another in the order of `questions`. Which image
        stands left, or how a set is arranged, is drawn from `rng` for the pair and recorded. The future is done once
        all is on disk.
        """
        asker = Asker(base.id, annotator_id, tuple(questions), offering.num_images)
        return self._database.submit(partial(self._issue, asker, count, rng=rng, lifetime=lifetime, offering=offering))

    def get(self, assignment_id: str) -> Assignment:
        """Raises NotFound."""
        with self._database.reader() as connection:
            row = connection.execute(_ONE, {"public_id": assignment_id}).one_or_none()
            if row is None:
                raise NotFound("there is no such assignment")
            return _assignments_of(connection, [row])[0]

    def _issue(
        self,
        asker: Asker,
        count: int,
        connection: Connection,
        *,
        rng: random.Random,
        lifetime: timedelta,
        offering: Offering,
    ) -> list[Assignment]:
        now = self._now()
        release_expired(connection, now)
        held = self._open(connection, asker, now)
        missing = count - len(held)
        if missing <= 0:
            return held[:count]
        mixed_in = _mixed_in(connection, asker, offering, -(-missing // len(asker.questions)), rng)
        missing -= sum(len(showing.questions) for showing in mixed_in)
        showings = _to_learn_from(connection, asker, offering, missing, rng) if missing > 0 else []
        for showing in mixed_in:
            showings.insert(rng.randint(0, len(showings)), showing)
        if not showings:
            return held
        times = {"created_at": now, "opened_at": now, "expires_at": now + lifetime}
        rows = [
            {
                "public_id": secrets.token_urlsafe(18),
                "base_id": asker.base_id,
                "annotator_id": asker.annotator_id,
                "pair_id": showing.pair_id,
                "question": question,
                "purpose": showing.purpose,
                "a_on_left": showing.a_on_left,
                "arrangement": showing.arrangement,
                "state": AssignmentState.OPEN,
                **times,
            }
            for showing in showings
            for question in showing.questions
        ]
        connection.execute(_INSERT, rows)
        _claim(connection, showings)
        return self._open(connection, asker, now)[:count]

    def _open(self, connection: Connection, asker: Asker, now: datetime) -> list[Assignment]:
        mine = {"base_id": asker.base_id, "annotator_id": asker.annotator_id}
        return _assignments_of(connection, connection.execute(open_of(asker.questions), {**mine, "now": now}).all())


def _mixed_in(
    connection: Connection, asker: Asker, offering: Offering, slots: int, rng: random.Random
) -> list[_Showing]:
    """The gold pairs and repeats among the next `slots` pairs, each drawn by its rate."""
    if offering.gold_rate <= 0 and offering.repeat_rate <= 0:
        return []
    drawn = [rng.random() for _ in range(slots)]
    num_gold = sum(one < offering.gold_rate for one in drawn)
    num_repeats = sum(offering.gold_rate <= one < offering.gold_rate + offering.repeat_rate for one in drawn)
    showings = []
    if num_gold:
        gold = gold_pairs(connection, asker)
        for pair_id in rng.sample(gold, min(num_gold, len(gold))):
            showings.append(_Showing.drawn(pair_id, asker, asker.questions, rng, Purpose.GOLD))
    if num_repeats:
        before = repeatable(connection, asker, after=offering.repeat_after)
        for pair_id in rng.sample(sorted(before), min(num_repeats, len(before))):
            a_on_left, arrangement = before[pair_id]
            if arrangement is None:
                showings.append(_Showing(pair_id, asker.questions, not a_on_left, Purpose.REPEAT))
            else:
                showings.append(_Showing.arranged(pair_id, asker.questions, arrangement[::-1], Purpose.REPEAT))
    return showings


def _to_learn_from(
    connection: Connection, asker: Asker, offering: Offering, missing: int, rng: random.Random
) -> list[_Showing]:
    """Whole pairs, until there are `missing` questions or more."""
    found = candidates(connection, asker, offering, missing)
    if offering.strategy is not None:
        found = offering.strategy.order(found, rng)
    pair_ids = [one.pair_id for one in found]
    seen: set[tuple[int, Question]] = set()
    if len(asker.questions) > 1:
        query = select(AssignmentRow.pair_id, AssignmentRow.question).where(
            AssignmentRow.annotator_id == asker.annotator_id, AssignmentRow.pair_id.in_(pair_ids), text(IS_SEEN)
        )
        seen = {(row.pair_id, row.question) for row in connection.execute(query)}
    showings: list[_Showing] = []
    for pair_id in pair_ids:
        if missing <= 0:
            break
        asked = tuple(question for question in asker.questions if (pair_id, question) not in seen)
        showings.append(_Showing.drawn(pair_id, asker, asked, rng, Purpose.VOTE))
        missing -= len(asked)
    return showings


def _claim(connection: Connection, showings: Sequence[_Showing]) -> None:
    connection.execute(_CLAIM, [{"pair": showing.pair_id, "claims": len(showing.questions)} for showing in showings])


def release_expired(connection: Connection, now: datetime) -> None:
    """Close the open assignments whose time is up and give their claims on pairs back."""
    released: Counter[int] = Counter()
    for statement in _LAPSE.values():
        released.update(connection.execute(statement, {"now": now}).scalars())
    if released:
        connection.execute(_CLAIM, [{"pair": pair_id, "claims": -claims} for pair_id, claims in released.items()])


def _assignments_of(connection: Connection, rows: Sequence[Row[*tuple[Any, ...]]]) -> list[Assignment]:
    sets = [row.pair_id for row in rows if row.arrangement is not None]
    more = images_of_sets(connection, sets) if sets else {}
    return [_assignment_of(row, more.get(row.pair_id, ())) for row in rows]


def shown_images(row: Row[*tuple[Any, ...]], more: Sequence[int]) -> tuple[int, ...]:
    """The ids of the images of a showing as they stood; `more`: those of images c and d."""
    arrangement = row.arrangement or ("ab" if row.a_on_left else "ba")
    images = (row.image_a_id, row.image_b_id, *more)
    return tuple(images[LETTERS.index(letter)] for letter in arrangement)


def _assignment_of(row: Row[*tuple[Any, ...]], more: Sequence[int]) -> Assignment:
    left, right, *others = shown_images(row, more)
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
        more_image_ids=tuple(others),
    )

"""Assignments: pairs issued to annotators to vote on, until they expire."""

import random
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, partial
from types import MappingProxyType
from typing import Any, Self

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
)

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import LETTERS, PAIR_SIZE, Assignment, AssignmentRules, Purpose, Question
from dmpo_app.errors import NotFoundError
from dmpo_app.store import schema
from dmpo_app.store.db.database import Database
from dmpo_app.store.judging.duel_offers import find_duels
from dmpo_app.store.pairs.pairs import find_set_images
from dmpo_app.store.voting.offers import (
    AssignmentRequest,
    find_candidates,
    find_gold_pairs,
    find_repeatable,
    max_claims,
)

# Built once: building and hashing a statement would cost as much as running it.
_ASSIGNMENTS: Select[*tuple[Any, ...]] = (
    select(
        schema.AssignmentRow.public_id,
        schema.AssignmentRow.annotator_id,
        schema.AssignmentRow.pair_id,
        schema.PromptRow.text,
        schema.PairRow.image_a_id,
        schema.PairRow.image_b_id,
        schema.AssignmentRow.a_on_left,
        schema.AssignmentRow.question,
        schema.AssignmentRow.expires_at,
        schema.AssignmentRow.arrangement,
    )
    .join(schema.PairRow, schema.PairRow.id == schema.AssignmentRow.pair_id)
    .join(schema.PromptRow, schema.PromptRow.id == schema.PairRow.prompt_id)
)
_ONE = _ASSIGNMENTS.where(schema.AssignmentRow.public_id == bindparam("public_id"))


@cache
def open_assignments_query(
    questions: tuple[Question, ...], *, with_pairs: bool = True, with_duels: bool = False, study_id: int | None = None
) -> Select[*tuple[Any, ...]]:
    """Query of an annotator's open assignments of these questions; takes `annotator_id`, `base_id` and `now`.

    `with_duels`: also duels, of this study or of none.
    """
    is_duel = schema.AssignmentRow.purpose == Purpose.DUEL
    of_study = exists().where(
        schema.DuelRow.pair_id == schema.AssignmentRow.pair_id, schema.DuelRow.study_id.is_not_distinct_from(study_id)
    )
    kinds = [~is_duel] if with_pairs else []
    if with_duels:
        kinds.append(and_(is_duel, of_study))
    return _ASSIGNMENTS.where(
        or_(*kinds),
        text(schema.IS_OPEN),
        schema.AssignmentRow.annotator_id == bindparam("annotator_id"),
        schema.AssignmentRow.base_id == bindparam("base_id"),
        schema.AssignmentRow.question.in_(questions),
        schema.AssignmentRow.expires_at > bindparam("now"),
    ).order_by(schema.AssignmentRow.id)


_LAPSE = {
    before: (
        update(schema.AssignmentRow)
        .where(
            text(f"{schema.IS_OPEN} AND state = '{before}'"),
            schema.AssignmentRow.expires_at <= bindparam("now"),
        )
        .values(state=after)
        .returning(schema.AssignmentRow.pair_id)
    )
    for before, after in schema.CLOSED_AS.items()
}


_INSERT = insert(schema.AssignmentRow)
_CLAIM = (
    update(schema.PairRow)
    .where(schema.PairRow.id == bindparam("pair"))
    .values(num_taken=schema.PairRow.num_taken + bindparam("claims", type_=BigInteger))
)

_DEFAULT_RULES = AssignmentRules()


@dataclass(frozen=True, slots=True)
class _NewAssignment:
    pair_id: int
    questions: tuple[Question, ...]
    a_on_left: bool
    purpose: Purpose = Purpose.VOTE
    arrangement: str | None = None

    @classmethod
    def with_random_places(
        cls,
        pair_id: int,
        request: AssignmentRequest,
        questions: tuple[Question, ...],
        rng: random.Random,
        purpose: Purpose,
    ) -> Self:
        """An assignment with random places: the sides of a pair, the arrangement of a set."""
        if request.num_images == PAIR_SIZE:
            return cls(pair_id, questions, rng.random() < 0.5, purpose)
        letters = LETTERS[: request.num_images]
        return cls.with_arrangement(pair_id, questions, "".join(rng.sample(letters, len(letters))), purpose)

    @classmethod
    def with_arrangement(
        cls, pair_id: int, questions: tuple[Question, ...], arrangement: str, purpose: Purpose
    ) -> Self:
        """An assignment of a set in a given arrangement."""
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
        rules: AssignmentRules = _DEFAULT_RULES,
    ) -> Future[list[Assignment]]:
        """Issue assignments: the annotator's open ones, oldest first, filled up to `count` if pairs are left.

        Pairs with the fewest live votes and open assignments come first, among them those of the newest version, among
        them the oldest; retired ones not at all. `rules` may say otherwise, and mix in gold pairs, repeats and duels,
        which are not learnt from; or ask for duels alone. All is decided in one transaction, so that nobody is assigned
        a pair that another one just got. Every question about a pair is an assignment of its own, one after another in
        the order of `questions`. Which image stands left, or how a set is arranged, is chosen by `rng` for the pair and
        recorded. The future is done once all is on disk.
        """
        request = AssignmentRequest(base.id, annotator_id, tuple(questions), rules.num_images)
        return self._database.submit(partial(self._issue, request, count, rng=rng, lifetime=lifetime, rules=rules))

    def get(self, assignment_id: str) -> Assignment:
        """Get an assignment by its public id. Raises NotFoundError."""
        with self._database.reader() as connection:
            row = connection.execute(_ONE, {"public_id": assignment_id}).one_or_none()
            if row is None:
                raise NotFoundError("there is no such assignment")
            return _assignments_from_rows(connection, [row])[0]

    def count_open(self, base: BaseModelRef) -> int:
        """Count the assignments of everybody that can be voted on."""
        query = select(func.count()).select_from(schema.AssignmentRow)
        conditions = (text(schema.IS_OPEN), schema.AssignmentRow.expires_at > self._now())
        with self._database.reader() as connection:
            return connection.execute(query.where(*conditions, schema.AssignmentRow.base_id == base.id)).scalar_one()

    def _issue(
        self,
        request: AssignmentRequest,
        count: int,
        connection: Connection,
        *,
        rng: random.Random,
        lifetime: timedelta,
        rules: AssignmentRules,
    ) -> list[Assignment]:
        now = self._now()
        release_expired(connection, now)
        open_assignments = self._open(connection, request, rules, now)
        num_missing = count - len(open_assignments)
        if num_missing <= 0:
            return open_assignments[:count]
        num_pairs = -(-num_missing // len(request.questions))
        if rules.duels_only:
            new_assignments = _choose_duels(connection, request, rules, num_pairs, rng)
        else:
            new_assignments = _choose_pairs(connection, request, rules, num_missing, rng)
        if not new_assignments:
            return open_assignments
        times = {"created_at": now, "opened_at": now, "expires_at": now + lifetime}
        rows = [
            {
                "public_id": secrets.token_urlsafe(18),
                "base_id": request.base_id,
                "annotator_id": request.annotator_id,
                "pair_id": new_assignment.pair_id,
                "question": question,
                "purpose": new_assignment.purpose,
                "a_on_left": new_assignment.a_on_left,
                "arrangement": new_assignment.arrangement,
                "state": schema.AssignmentState.OPEN,
                **times,
            }
            for new_assignment in new_assignments
            for question in new_assignment.questions
        ]
        connection.execute(_INSERT, rows)
        _claim(connection, new_assignments)
        return self._open(connection, request, rules, now)[:count]

    def _open(
        self, connection: Connection, request: AssignmentRequest, rules: AssignmentRules, now: datetime
    ) -> list[Assignment]:
        parameters = {"base_id": request.base_id, "annotator_id": request.annotator_id}
        query = open_assignments_query(
            request.questions,
            with_pairs=not rules.duels_only,
            with_duels=rules.duels_only or rules.mixes_duels(request.questions),
            study_id=rules.study_id,
        )
        return _assignments_from_rows(connection, connection.execute(query, {**parameters, "now": now}).all())


def _choose_pairs(
    connection: Connection, request: AssignmentRequest, rules: AssignmentRules, num_missing: int, rng: random.Random
) -> list[_NewAssignment]:
    """Choose pairs to learn from until there are `num_missing` questions, others mixed in by their rates."""
    mixed_in = _choose_mixed_in(connection, request, rules, -(-num_missing // len(request.questions)), rng)
    num_missing -= sum(len(new_assignment.questions) for new_assignment in mixed_in)
    new_assignments = _choose_for_training(connection, request, rules, num_missing, rng) if num_missing > 0 else []
    for new_assignment in mixed_in:
        new_assignments.insert(rng.randint(0, len(new_assignments)), new_assignment)
    return new_assignments


def _choose_mixed_in(
    connection: Connection, request: AssignmentRequest, rules: AssignmentRules, num_pairs: int, rng: random.Random
) -> list[_NewAssignment]:
    """Choose gold pairs, repeats and duels among the next `num_pairs` pairs, each by its rate."""
    duel_rate = rules.duel_rate if rules.mixes_duels(request.questions) else 0.0
    if rules.gold_rate <= 0 and rules.repeat_rate <= 0 and duel_rate <= 0:
        return []
    random_numbers = [rng.random() for _ in range(num_pairs)]
    num_gold = sum(one < rules.gold_rate for one in random_numbers)
    checks_rate = rules.gold_rate + rules.repeat_rate
    num_repeats = sum(rules.gold_rate <= one < checks_rate for one in random_numbers)
    num_duels = sum(checks_rate <= one < checks_rate + duel_rate for one in random_numbers)
    duels = _choose_duels(connection, request, rules, num_duels, rng) if num_duels else []
    return _choose_quality_checks(connection, request, rules, num_gold, num_repeats, rng) + duels


def _choose_quality_checks(
    connection: Connection,
    request: AssignmentRequest,
    rules: AssignmentRules,
    num_gold: int,
    num_repeats: int,
    rng: random.Random,
) -> list[_NewAssignment]:
    """Choose gold pairs and repeats, as many as there are up to these numbers."""
    new_assignments = []
    if num_gold:
        gold = find_gold_pairs(connection, request)
        for pair_id in rng.sample(gold, min(num_gold, len(gold))):
            new_assignments.append(
                _NewAssignment.with_random_places(pair_id, request, request.questions, rng, Purpose.GOLD)
            )
    if num_repeats:
        repeats = find_repeatable(connection, request, after=rules.repeat_after)
        for pair_id in rng.sample(sorted(repeats), min(num_repeats, len(repeats))):
            a_on_left, arrangement = repeats[pair_id]
            if arrangement is None:
                new_assignments.append(_NewAssignment(pair_id, request.questions, not a_on_left, Purpose.REPEAT))
            else:
                new_assignments.append(
                    _NewAssignment.with_arrangement(pair_id, request.questions, arrangement[::-1], Purpose.REPEAT)
                )
    return new_assignments


def _choose_for_training(
    connection: Connection, request: AssignmentRequest, rules: AssignmentRules, num_missing: int, rng: random.Random
) -> list[_NewAssignment]:
    """Choose whole pairs to learn from, until there are `num_missing` questions or more."""
    candidate_pairs = find_candidates(connection, request, rules, num_missing)
    if rules.strategy is not None:
        candidate_pairs = rules.strategy.order(candidate_pairs, rng)
    pair_ids = [one.pair_id for one in candidate_pairs]
    questions_by_pair = _unseen_questions(connection, request, pair_ids)
    new_assignments: list[_NewAssignment] = []
    for pair_id in pair_ids:
        if num_missing <= 0:
            break
        questions = questions_by_pair[pair_id]
        new_assignments.append(_NewAssignment.with_random_places(pair_id, request, questions, rng, Purpose.VOTE))
        num_missing -= len(questions)
    return new_assignments


def _choose_duels(
    connection: Connection, request: AssignmentRequest, rules: AssignmentRules, num_duels: int, rng: random.Random
) -> list[_NewAssignment]:
    """Choose duels, as many as there are up to a number; each is asked about as any other pair."""
    most = max_claims(request, rules)
    pair_ids = find_duels(connection, request, max_taken=most, count=num_duels, study_id=rules.study_id)
    questions_by_pair = _unseen_questions(connection, request, pair_ids)
    return [
        _NewAssignment.with_random_places(pair_id, request, questions_by_pair[pair_id], rng, Purpose.DUEL)
        for pair_id in pair_ids
    ]


def _unseen_questions(
    connection: Connection, request: AssignmentRequest, pair_ids: Sequence[int]
) -> dict[int, tuple[Question, ...]]:
    """The questions that the annotator has not been asked about these pairs, by pair id."""
    seen: set[tuple[int, Question]] = set()
    if len(request.questions) > 1:
        query = select(schema.AssignmentRow.pair_id, schema.AssignmentRow.question).where(
            schema.AssignmentRow.annotator_id == request.annotator_id,
            schema.AssignmentRow.pair_id.in_(pair_ids),
            text(schema.IS_SEEN),
        )
        seen = {(row.pair_id, row.question) for row in connection.execute(query)}
    return {
        pair_id: tuple(question for question in request.questions if (pair_id, question) not in seen)
        for pair_id in pair_ids
    }


def _claim(connection: Connection, new_assignments: Sequence[_NewAssignment]) -> None:
    connection.execute(
        _CLAIM,
        [
            {"pair": new_assignment.pair_id, "claims": len(new_assignment.questions)}
            for new_assignment in new_assignments
        ],
    )


def release_expired(connection: Connection, now: datetime) -> None:
    """Close expired assignments and release their claims on pairs."""
    released: Counter[int] = Counter()
    for statement in _LAPSE.values():
        released.update(connection.execute(statement, {"now": now}).scalars())
    _release_claims(connection, released)


def close_open_assignments(
    connection: Connection,
    pair_ids: Sequence[int],
    *conditions: ColumnElement[bool],
    closed_as: Mapping[schema.AssignmentState, schema.AssignmentState] = MappingProxyType(schema.CLOSED_AS),
) -> None:
    """Close the open assignments of pairs, all of them or those that meet conditions, and release their claims."""
    released: Counter[int] = Counter()
    for before, after in closed_as.items():
        statement = (
            update(schema.AssignmentRow)
            .where(schema.AssignmentRow.pair_id.in_(pair_ids), schema.AssignmentRow.state == before, *conditions)
            .values(state=after)
            .returning(schema.AssignmentRow.pair_id)
        )
        released.update(connection.execute(statement).scalars())
    _release_claims(connection, released)


def _release_claims(connection: Connection, released: Mapping[int, int]) -> None:
    if released:
        connection.execute(_CLAIM, [{"pair": pair_id, "claims": -claims} for pair_id, claims in released.items()])


def _assignments_from_rows(connection: Connection, rows: Sequence[Row[*tuple[Any, ...]]]) -> list[Assignment]:
    set_ids = [row.pair_id for row in rows if row.arrangement is not None]
    more = find_set_images(connection, set_ids) if set_ids else {}
    return [_assignment_from_row(row, more.get(row.pair_id, ())) for row in rows]


def image_ids_in_order(row: Row[*tuple[Any, ...]], more: Sequence[int]) -> tuple[int, ...]:
    """The image ids of an assignment in the order shown; `more`: those of images c and d."""
    arrangement = row.arrangement or ("ab" if row.a_on_left else "ba")
    images = (row.image_a_id, row.image_b_id, *more)
    return tuple(images[LETTERS.index(letter)] for letter in arrangement)


def _assignment_from_row(row: Row[*tuple[Any, ...]], more: Sequence[int]) -> Assignment:
    left, right, *others = image_ids_in_order(row, more)
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

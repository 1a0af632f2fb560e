"""Candidate pairs for an annotator's next assignment, with the features that strategies ask for."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, exists, func, select, text

from dmpo_app.domain.lineage import PairSource
from dmpo_app.domain.vote import AssignmentRules, Candidate, CandidateFeature, Outcome, Purpose, Question
from dmpo_app.store import schema
from dmpo_app.store.voting.vote_queries import is_not_struck

WINDOW = 64
"""The number of candidates that a strategy chooses among: enough for a choice, few enough for a request."""
_NO_LIMIT = 2**31 - 1
_MAX_ROWS = 256


@dataclass(frozen=True, slots=True)
class AssignmentRequest:
    """A request for assignments: annotator, lineage, and the questions about each pair."""

    base_id: int
    annotator_id: int
    questions: tuple[Question, ...]
    num_images: int = 2

    @property
    def parameters(self) -> dict[str, int]:
        """The parameters of the statements here."""
        return {"base_id": self.base_id, "annotator_id": self.annotator_id, "num_images": self.num_images}


REPORTED_BY_THEM = exists().where(
    schema.ReportRow.annotator_id == bindparam("annotator_id"), schema.ReportRow.pair_id == schema.PairRow.id
)


def is_unseen(questions: Sequence[Question]) -> ColumnElement[bool]:
    """Condition of the pairs that the annotator has not been asked all of these questions about."""
    seen = [
        exists().where(
            schema.AssignmentRow.annotator_id == bindparam("annotator_id"),
            schema.AssignmentRow.pair_id == schema.PairRow.id,
            schema.AssignmentRow.question == question,
            text(schema.IS_SEEN),
        )
        for question in questions
    ]
    return ~and_(*seen)


@cache
def candidates_query(questions: tuple[Question, ...], *, begun: bool = False) -> Select[*tuple[Any, ...]]:
    """Query of the candidates that the annotator has not been asked all of these questions about.

    Takes `annotator_id`, `base_id`, `num_images`, `count` and `most`, which their claims are below. `begun`: only every
    `every`-th pair that somebody has taken. No pair that is hidden or that the annotator has ever reported.
    """
    conditions = [
        schema.PairRow.base_id == bindparam("base_id"),
        schema.PairRow.num_images == bindparam("num_images"),
        schema.PairRow.num_taken < bindparam("most"),
        schema.PairRow.gold.is_(None),
        # Without an index of its own: at most some in a hundred are hidden.
        schema.PairRow.hidden_at.is_(None),
        ~REPORTED_BY_THEM,
    ]
    if begun:
        conditions += [schema.PairRow.num_taken > 0, schema.PairRow.id % bindparam("every") == 0]
    return (
        select(
            schema.PairRow.id,
            schema.PairRow.prompt_id,
            schema.PairRow.adapter_version,
            schema.PairRow.num_taken,
            schema.PairRow.image_a_id,
            schema.PairRow.image_b_id,
        )
        .where(*conditions, text(schema.IS_IN_POOL), is_unseen(questions))
        .order_by(schema.PairRow.num_taken, schema.PairRow.adapter_version.desc(), schema.PairRow.id)
        .limit(bindparam("count"))
    )


_GOLD = (
    select(schema.PairRow.id)
    .where(
        schema.PairRow.base_id == bindparam("base_id"),
        schema.PairRow.num_images == bindparam("num_images"),
        schema.PairRow.gold.is_not(None),
        schema.PairRow.hidden_at.is_(None),
        text(schema.IS_IN_POOL),
        ~exists().where(
            schema.AssignmentRow.annotator_id == bindparam("annotator_id"),
            schema.AssignmentRow.pair_id == schema.PairRow.id,
            text(schema.IS_SEEN),
        ),
    )
    .order_by(schema.PairRow.id)
    .limit(_MAX_ROWS)
)
_LIVE_OF = (
    select(schema.VoteRow.id)
    .where(schema.VoteRow.annotator_id == bindparam("annotator_id"), text(schema.IS_LIVE))
    .order_by(schema.VoteRow.id.desc())
)
_OLD_ENOUGH = _LIVE_OF.limit(1).offset(bindparam("after")).scalar_subquery()
_REPEATABLE = (
    select(schema.VoteRow.pair_id, schema.AssignmentRow.a_on_left, schema.AssignmentRow.arrangement)
    .join(schema.AssignmentRow, schema.AssignmentRow.id == schema.VoteRow.assignment_id)
    .join(schema.PairRow, schema.PairRow.id == schema.VoteRow.pair_id)
    .where(
        schema.VoteRow.annotator_id == bindparam("annotator_id"),
        schema.VoteRow.base_id == bindparam("base_id"),
        schema.VoteRow.undone_at.is_(None),
        schema.VoteRow.withdrawn_at.is_(None),
        schema.VoteRow.purpose == Purpose.VOTE,
        schema.VoteRow.question == bindparam("question"),
        schema.VoteRow.id <= _OLD_ENOUGH,
        schema.PairRow.retired_at.is_(None),
        schema.PairRow.damaged_at.is_(None),
        schema.PairRow.hidden_at.is_(None),
        ~REPORTED_BY_THEM,
        schema.PairRow.gold.is_(None),
        schema.PairRow.num_images == bindparam("num_images"),
    )
    .order_by(schema.VoteRow.id.desc())
    .limit(_MAX_ROWS)
)


def find_candidates(
    connection: Connection, request: AssignmentRequest, rules: AssignmentRules, count: int
) -> list[Candidate]:
    """Find `count` candidates or more, if there are any, in the store's order; begun pairs of an overlap first."""
    per_pair = len(request.questions)
    max_taken = max_claims(request, rules)
    strategy = rules.strategy
    parameters: dict[str, int] = {**request.parameters, "most": max_taken}
    if strategy is None:
        rows = connection.execute(candidates_query(request.questions), {**parameters, "count": count}).all()
        return [Candidate(*row[:4]) for row in rows]
    rows = []
    if strategy.overlap is not None:
        overlap_parameters = {
            "every": strategy.overlap.every,
            "most": min(max_taken, strategy.overlap.people * per_pair),
        }
        rows += connection.execute(
            candidates_query(request.questions, begun=True), {**parameters, **overlap_parameters, "count": count}
        ).all()
    begun_ids = {row.id for row in rows}
    window = connection.execute(candidates_query(request.questions), {**parameters, "count": max(count, WINDOW)})
    rows += [row for row in window if row.id not in begun_ids]
    return _with_features(connection, rows, strategy.required_features)


def max_claims(request: AssignmentRequest, rules: AssignmentRules) -> int:
    """The live votes and open assignments that a pair has at most, over all questions of a request."""
    if rules.assignments_per_pair is None:
        return _NO_LIMIT
    return rules.assignments_per_pair * len(request.questions)


def find_gold_pairs(connection: Connection, request: AssignmentRequest) -> list[int]:
    """Find gold pairs that the annotator has not been assigned."""
    return list(connection.execute(_GOLD, request.parameters).scalars())


def find_repeatable(
    connection: Connection, request: AssignmentRequest, *, after: int
) -> dict[int, tuple[bool, str | None]]:
    """Find pairs for a repeat: the annotator has voted on every question, not within their last `after` votes.

    None is repeated twice. Values: whether image a stood left the first time, and the arrangement of a set then.
    """
    places_by_question: list[dict[int, tuple[bool, str | None]]] = []
    for question in request.questions:
        rows = connection.execute(_REPEATABLE, {**request.parameters, "after": after, "question": question})
        places_by_question.append({row.pair_id: (row.a_on_left, row.arrangement) for row in rows})
    pair_ids = set(places_by_question[0]).intersection(*places_by_question[1:])
    repeats_query = select(schema.AssignmentRow.pair_id).where(
        schema.AssignmentRow.annotator_id == request.annotator_id,
        schema.AssignmentRow.pair_id.in_(pair_ids),
        text(schema.IS_REPEATED),
    )
    repeated_ids = set(connection.execute(repeats_query).scalars())
    return {pair_id: places_by_question[0][pair_id] for pair_id in sorted(pair_ids - repeated_ids)}


def _with_features(
    connection: Connection, rows: Sequence[Any], required_features: frozenset[CandidateFeature]
) -> list[Candidate]:
    candidates_with_features = [Candidate(*row[:4]) for row in rows]
    ids = [one.pair_id for one in candidates_with_features]
    if CandidateFeature.MARGIN in required_features:
        query = select(schema.PairMarginRow.pair_id, schema.PairMarginRow.margin).where(
            schema.PairMarginRow.pair_id.in_(ids)
        )
        margins = {row.pair_id: row.margin for row in connection.execute(query)}
        candidates_with_features = [replace(one, margin=margins.get(one.pair_id)) for one in candidates_with_features]
    if CandidateFeature.SCORES in required_features:
        scores = _score_differences(connection, rows)
        candidates_with_features = [replace(one, scores=scores[one.pair_id]) for one in candidates_with_features]
    if CandidateFeature.PROMPT_VOTES in required_features:
        prompts = {one.prompt_id for one in candidates_with_features}
        base_id = select(schema.PairRow.base_id).where(schema.PairRow.id == ids[0]).scalar_subquery() if ids else None
        votes = select(schema.PairRow.prompt_id, func.sum(schema.PairRow.num_votes)).where(
            schema.PairRow.base_id == base_id,
            schema.PairRow.prompt_id.in_(prompts),
            schema.PairRow.source != PairSource.DUEL,
        )
        counts = {row[0]: int(row[1]) for row in connection.execute(votes.group_by(schema.PairRow.prompt_id))}
        candidates_with_features = [
            replace(one, prompt_votes=counts[one.prompt_id]) for one in candidates_with_features
        ]
    if CandidateFeature.WINS in required_features:
        wins = _wins(connection, ids)
        candidates_with_features = [replace(one, wins=wins[one.pair_id]) for one in candidates_with_features]
    return candidates_with_features


def _score_differences(connection: Connection, rows: Sequence[Any]) -> Mapping[int, tuple[float, ...]]:
    """Score differences a - b by pair and scorer (by name), in standard deviations over these pairs."""
    images = [image_id for row in rows for image_id in (row.image_a_id, row.image_b_id)]
    query = select(schema.ImageScoreRow.scorer, schema.ImageScoreRow.image_id, schema.ImageScoreRow.score)
    scores: dict[str, dict[int, float]] = defaultdict(dict)
    for scorer, image_id, score in connection.execute(query.where(schema.ImageScoreRow.image_id.in_(images))):
        scores[scorer][image_id] = score
    differences_by_pair: dict[int, tuple[float, ...]] = defaultdict(tuple)
    for scorer in sorted(scores):
        of_image = scores[scorer]
        differences = {
            row.id: of_image[row.image_a_id] - of_image[row.image_b_id]
            for row in rows
            if row.image_a_id in of_image and row.image_b_id in of_image
        }
        spread = math.sqrt(float(np.mean(np.square(list(differences.values()))))) if differences else 0.0
        for pair_id, difference in differences.items():
            differences_by_pair[pair_id] = (*differences_by_pair[pair_id], difference / spread if spread > 0 else 0.0)
    return differences_by_pair


def _wins(connection: Connection, pair_ids: Sequence[int]) -> Mapping[int, tuple[int, int, int]]:
    query = (
        select(schema.AssignmentRow.pair_id, schema.VoteRow.outcome, func.count())
        .join(schema.VoteRow, schema.VoteRow.assignment_id == schema.AssignmentRow.id)
        .where(
            schema.AssignmentRow.pair_id.in_(pair_ids),
            schema.AssignmentRow.state == schema.AssignmentState.ANSWERED,
            schema.VoteRow.undone_at.is_(None),
            schema.VoteRow.withdrawn_at.is_(None),
            schema.VoteRow.purpose == Purpose.VOTE,
            is_not_struck(),
        )
        .group_by(schema.AssignmentRow.pair_id, schema.VoteRow.outcome)
    )
    counts: dict[int, dict[Outcome, int]] = defaultdict(lambda: defaultdict(int))
    for pair_id, outcome, count in connection.execute(query):
        counts[pair_id][outcome] = count
    none: tuple[int, int, int] = (0, 0, 0)
    wins_by_pair: dict[int, tuple[int, int, int]] = defaultdict(lambda: none)
    for pair_id, of_pair in counts.items():
        wins_by_pair[pair_id] = (of_pair[Outcome.A], of_pair[Outcome.B], of_pair[Outcome.TIE])
    return wins_by_pair

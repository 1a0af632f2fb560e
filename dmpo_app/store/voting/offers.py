"""Which pairs an annotator could be shown next, with what strategies want to know of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from sqlalchemy import Connection, Select, and_, bindparam, exists, func, select, text

from dmpo_app.domain.pair_choice import Candidate, Fact, Offering, Purpose
from dmpo_app.domain.vote import Outcome, Question
from dmpo_app.store.schema import (
    IS_IN_POOL,
    IS_LIVE,
    IS_REPEATED,
    IS_SEEN,
    AssignmentRow,
    AssignmentState,
    ImageScoreRow,
    PairMarginRow,
    PairRow,
    VoteRow,
)

WINDOW = 64
"""Candidates that a strategy chooses among: enough for a choice, few enough for a request."""
_NO_LIMIT = 2**31 - 1
_MANY = 256


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose next pairs are looked for, of which lineage, and what they are asked about each."""

    base_id: int
    annotator_id: int
    questions: tuple[Question, ...]
    num_images: int = 2

    @property
    def parameters(self) -> dict[str, int]:
        """What the statements here take."""
        return {"base_id": self.base_id, "annotator_id": self.annotator_id, "num_images": self.num_images}


@cache
def offer(questions: tuple[Question, ...], *, begun: bool = False) -> Select[*tuple[Any, ...]]:
    """The pairs to show next, of which an annotator lacks one of these questions; takes `annotator_id`, `base_id`,
    `num_images`, `count` and `most`, which their claims are below. `begun`: only every `every`-th pair that somebody
    has taken."""
    seen = [
        exists().where(
            AssignmentRow.annotator_id == bindparam("annotator_id"),
            AssignmentRow.pair_id == PairRow.id,
            AssignmentRow.question == question,
            text(IS_SEEN),
        )
        for question in questions
    ]
    conditions = [
        PairRow.base_id == bindparam("base_id"),
        PairRow.num_images == bindparam("num_images"),
        PairRow.num_taken < bindparam("most"),
        PairRow.gold.is_(None),
    ]
    if begun:
        conditions += [PairRow.num_taken > 0, PairRow.id % bindparam("every") == 0]
    return (
        select(
            PairRow.id,
            PairRow.prompt_id,
            PairRow.adapter_version,
            PairRow.num_taken,
            PairRow.image_a_id,
            PairRow.image_b_id,
        )
        .where(*conditions, text(IS_IN_POOL), ~and_(*seen))
        .order_by(PairRow.num_taken, PairRow.adapter_version.desc(), PairRow.id)
        .limit(bindparam("count"))
    )


_GOLD = (
    select(PairRow.id)
    .where(
        PairRow.base_id == bindparam("base_id"),
        PairRow.num_images == bindparam("num_images"),
        PairRow.gold.is_not(None),
        text(IS_IN_POOL),
        ~exists().where(
            AssignmentRow.annotator_id == bindparam("annotator_id"), AssignmentRow.pair_id == PairRow.id, text(IS_SEEN)
        ),
    )
    .order_by(PairRow.id)
    .limit(_MANY)
)
_LIVE_OF = (
    select(VoteRow.id)
    .where(VoteRow.annotator_id == bindparam("annotator_id"), text(IS_LIVE))
    .order_by(VoteRow.id.desc())
)
_OLD_ENOUGH = _LIVE_OF.limit(1).offset(bindparam("after")).scalar_subquery()
_REPEATABLE = (
    select(VoteRow.pair_id, AssignmentRow.a_on_left, AssignmentRow.arrangement)
    .join(AssignmentRow, AssignmentRow.id == VoteRow.assignment_id)
    .join(PairRow, PairRow.id == VoteRow.pair_id)
    .where(
        VoteRow.annotator_id == bindparam("annotator_id"),
        VoteRow.base_id == bindparam("base_id"),
        VoteRow.undone_at.is_(None),
        VoteRow.withdrawn_at.is_(None),
        VoteRow.purpose == Purpose.VOTE,
        VoteRow.question == bindparam("question"),
        VoteRow.id <= _OLD_ENOUGH,
        PairRow.retired_at.is_(None),
        PairRow.gold.is_(None),
        PairRow.num_images == bindparam("num_images"),
    )
    .order_by(VoteRow.id.desc())
    .limit(_MANY)
)


def candidates(connection: Connection, asker: Asker, offering: Offering, count: int) -> list[Candidate]:
    """At least `count` pairs if there are so many, in the store's order; those of an overlap that are begun first."""
    per_pair = len(asker.questions)
    most = _NO_LIMIT if offering.showings_per_pair is None else offering.showings_per_pair * per_pair
    strategy = offering.strategy
    wanted: dict[str, int] = {**asker.parameters, "most": most}
    if strategy is None:
        found = connection.execute(offer(asker.questions), {**wanted, "count": count}).all()
        return [Candidate(*row[:4]) for row in found]
    found = []
    if strategy.overlap is not None:
        begun = {"every": strategy.overlap.every, "most": min(most, strategy.overlap.people * per_pair)}
        found += connection.execute(offer(asker.questions, begun=True), {**wanted, **begun, "count": count}).all()
    known = {row.id for row in found}
    window = connection.execute(offer(asker.questions), {**wanted, "count": max(count, WINDOW)})
    found += [row for row in window if row.id not in known]
    return _with_facts(connection, found, strategy.needs)


def gold_pairs(connection: Connection, asker: Asker) -> list[int]:
    """Gold pairs that the annotator has not been shown."""
    return list(connection.execute(_GOLD, asker.parameters).scalars())


def repeatable(connection: Connection, asker: Asker, *, after: int) -> dict[int, tuple[bool, str | None]]:
    """Pairs whose every question the annotator has answered, none within their last `after` votes and none twice, with
    whether image a stood left the first time, and how the images of a set were arranged then."""
    answered: list[dict[int, tuple[bool, str | None]]] = []
    for question in asker.questions:
        rows = connection.execute(_REPEATABLE, {**asker.parameters, "after": after, "question": question})
        answered.append({row.pair_id: (row.a_on_left, row.arrangement) for row in rows})
    pair_ids = set(answered[0]).intersection(*answered[1:])
    repeated = select(AssignmentRow.pair_id).where(
        AssignmentRow.annotator_id == asker.annotator_id, AssignmentRow.pair_id.in_(pair_ids), text(IS_REPEATED)
    )
    done = set(connection.execute(repeated).scalars())
    return {pair_id: answered[0][pair_id] for pair_id in sorted(pair_ids - done)}


def _with_facts(connection: Connection, rows: Sequence[Any], needs: frozenset[Fact]) -> list[Candidate]:
    found = [Candidate(*row[:4]) for row in rows]
    ids = [one.pair_id for one in found]
    if Fact.MARGIN in needs:
        query = select(PairMarginRow.pair_id, PairMarginRow.margin).where(PairMarginRow.pair_id.in_(ids))
        margins = {row.pair_id: row.margin for row in connection.execute(query)}
        found = [replace(one, margin=margins.get(one.pair_id)) for one in found]
    if Fact.SCORES in needs:
        scores = _score_differences(connection, rows)
        found = [replace(one, scores=scores[one.pair_id]) for one in found]
    if Fact.PROMPT_VOTES in needs:
        prompts = {one.prompt_id for one in found}
        base_id = select(PairRow.base_id).where(PairRow.id == ids[0]).scalar_subquery() if ids else None
        votes = select(PairRow.prompt_id, func.sum(PairRow.num_votes)).where(
            PairRow.base_id == base_id, PairRow.prompt_id.in_(prompts)
        )
        counts = {row[0]: int(row[1]) for row in connection.execute(votes.group_by(PairRow.prompt_id))}
        found = [replace(one, prompt_votes=counts[one.prompt_id]) for one in found]
    if Fact.WINS in needs:
        wins = _wins(connection, ids)
        found = [replace(one, wins=wins[one.pair_id]) for one in found]
    return found


def _score_differences(connection: Connection, rows: Sequence[Any]) -> Mapping[int, tuple[float, ...]]:
    """By pair, what each scorer says for image a, in standard deviations over these pairs; scorers by name."""
    images = [image_id for row in rows for image_id in (row.image_a_id, row.image_b_id)]
    query = select(ImageScoreRow.scorer, ImageScoreRow.image_id, ImageScoreRow.score)
    scores: dict[str, dict[int, float]] = defaultdict(dict)
    for scorer, image_id, score in connection.execute(query.where(ImageScoreRow.image_id.in_(images))):
        scores[scorer][image_id] = score
    found: dict[int, tuple[float, ...]] = defaultdict(tuple)
    for scorer in sorted(scores):
        of_image = scores[scorer]
        known = {
            row.id: of_image[row.image_a_id] - of_image[row.image_b_id]
            for row in rows
            if row.image_a_id in of_image and row.image_b_id in of_image
        }
        spread = math.sqrt(float(np.mean(np.square(list(known.values()))))) if known else 0.0
        for pair_id, difference in known.items():
            found[pair_id] = (*found[pair_id], difference / spread if spread > 0 else 0.0)
    return found


def _wins(connection: Connection, pair_ids: Sequence[int]) -> Mapping[int, tuple[int, int, int]]:
    query = (
        select(AssignmentRow.pair_id, VoteRow.outcome, func.count())
        .join(VoteRow, VoteRow.assignment_id == AssignmentRow.id)
        .where(
            AssignmentRow.pair_id.in_(pair_ids),
            AssignmentRow.state == AssignmentState.ANSWERED,
            VoteRow.undone_at.is_(None),
            VoteRow.withdrawn_at.is_(None),
            VoteRow.purpose == Purpose.VOTE,
        )
        .group_by(AssignmentRow.pair_id, VoteRow.outcome)
    )
    counts: dict[int, dict[Outcome, int]] = defaultdict(lambda: defaultdict(int))
    for pair_id, outcome, count in connection.execute(query):
        counts[pair_id][outcome] = count
    none: tuple[int, int, int] = (0, 0, 0)
    found: dict[int, tuple[int, int, int]] = defaultdict(lambda: none)
    for pair_id, of_pair in counts.items():
        found[pair_id] = (of_pair[Outcome.A], of_pair[Outcome.B], of_pair[Outcome.TIE])
    return found

"""SQL statements about votes, built once: building and hashing one would cost as much as running it."""

from __future__ import annotations

from sqlalchemy import BigInteger, ColumnElement, bindparam, case, func, insert, or_, select, text, update

from dmpo_app.domain.pair_choice import Purpose
from dmpo_app.domain.vote import PREFERENCES, STRENGTHS
from dmpo_app.store.schema import (
    IS_LIVE,
    IS_RETIRED,
    IS_UNENCODED,
    AssignmentRow,
    AssignmentState,
    PairRow,
    RoundRow,
    VoteRow,
)

ASSIGNMENT = select(
    AssignmentRow.id,
    AssignmentRow.base_id,
    AssignmentRow.annotator_id,
    AssignmentRow.pair_id,
    AssignmentRow.question,
    AssignmentRow.purpose,
    AssignmentRow.a_on_left,
    AssignmentRow.arrangement,
    AssignmentRow.state,
    AssignmentRow.expires_at,
).where(AssignmentRow.public_id == bindparam("public_id"))
LIVE_VOTE = select(VoteRow.id, VoteRow.choice, VoteRow.strength, VoteRow.comment, VoteRow.ranking).where(
    VoteRow.assignment_id == bindparam("assignment"), text(IS_LIVE)
)
INSERT_VOTE = insert(VoteRow).returning(VoteRow.id)
MARK_ANSWERED = (
    update(AssignmentRow).where(AssignmentRow.id == bindparam("assignment")).values(state=AssignmentState.ANSWERED)
)
CHANGE_VOTE_COUNT = (
    update(PairRow)
    .where(PairRow.id == bindparam("pair"))
    .values(num_votes=PairRow.num_votes + bindparam("change", type_=BigInteger))
)
LATEST_LIVE = (
    select(VoteRow.id)
    .where(VoteRow.annotator_id == bindparam("annotator_id"), text(IS_LIVE))
    .order_by(VoteRow.id.desc())
    .limit(1)
)

STRENGTH_COUNTS = case(
    *((VoteRow.strength == strength, counts) for strength, counts in STRENGTHS.items() if strength is not None),
    else_=STRENGTHS[None],
)
"""The weight of a vote's strength in a target."""


def training_conditions() -> tuple[ColumnElement[bool], ...]:
    """Conditions of the votes that rounds learn from; takes `base_id` and `question`."""
    # The retired pairs are few and read once, where a lookup of every vote's pair would cost with each vote. Where
    # there are none, as is usual, not even the set of them is made.
    # Pairs that were imported and have no latents yet are left out the same way.
    retired = select(PairRow.id).where(text(IS_RETIRED))
    unencoded = select(PairRow.id).where(PairRow.base_id == bindparam("base_id"), text(IS_UNENCODED))
    return (
        VoteRow.base_id == bindparam("base_id"),
        VoteRow.question == bindparam("question"),
        VoteRow.purpose == Purpose.VOTE,
        VoteRow.outcome.in_(PREFERENCES),
        or_(~retired.exists(), VoteRow.pair_id.not_in(retired)),
        or_(~unencoded.exists(), VoteRow.pair_id.not_in(unencoded)),
        text(IS_LIVE),  # type: ignore[return-value]  # a condition like the others, though it has no type
    )


_WATERMARK = (
    select(func.coalesce(func.max(RoundRow.last_vote_id), 0))
    .where(RoundRow.base_id == bindparam("base_id"), RoundRow.finished_at.is_not(None))
    .scalar_subquery()
)
COUNT_TRAINED_ON = select(func.count()).select_from(VoteRow).where(*training_conditions())
NEW_PREFERENCES = select(func.count(), func.min(VoteRow.id), func.max(VoteRow.id)).where(
    *training_conditions(), VoteRow.id > _WATERMARK
)
COUNT_NEW = select(func.count()).select_from(
    select(VoteRow.id).where(*training_conditions(), VoteRow.id > _WATERMARK).limit(bindparam("at_most")).subquery()
)

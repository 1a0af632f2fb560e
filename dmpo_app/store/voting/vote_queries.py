"""Queries of votes: which of them count, and the votes of each pair as exports and quality read them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    bindparam,
    case,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.orm import aliased

from dmpo_app.domain.image import BaseModelRef, ImageRef, PairSource, Provenance
from dmpo_app.domain.vote import PREFERENCES, STRENGTHS, Choice, Outcome, Purpose, Question, Strength
from dmpo_app.store.db.database import Database
from dmpo_app.store.schema import (
    IS_LIVE,
    IS_RETIRED,
    IS_UNCLEARED,
    IS_UNENCODED,
    AssignmentRow,
    AssignmentState,
    ImageRow,
    ImportedPairRow,
    PairRow,
    PromptRow,
    ReportRow,
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


_IMAGE = (
    "id", "sha256", "latents_sha256", "width", "height", "prompt", "seed", "sampler", "num_steps", "guidance",
    "adapter_version", "strength", "batch_size", "num_threads", "device", "dtype",
)  # fmt: skip
"""The image's own columns, then those of its provenance, in the order of `Provenance`."""


@dataclass(frozen=True, slots=True)
class ExportVote:
    """A live vote for an export. `elapsed_ms` is 0 where the client did not say."""

    id: int
    annotator_id: int
    question: Question
    purpose: Purpose
    choice: Choice
    outcome: Outcome
    a_on_left: bool
    strength: Strength | None
    comment: str | None
    elapsed_ms: int
    at: datetime


@dataclass(frozen=True, slots=True)
class VotedPair:
    """A pair with its live votes, oldest first. `reported`: out of the pool, or by a report that is not cleared.

    `origin`: of an imported pair, what its source says of how images "a" and "b" were made.
    """

    id: int
    prompt: str
    image_a: ImageRef
    image_b: ImageRef
    source: PairSource
    adapter_version: int
    gold: Outcome | None
    reported: bool
    votes: Sequence[ExportVote]
    origin: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def origin_for(self, image: ImageRef) -> Mapping[str, Any]:
        """The metadata of one of the two images at its source; empty for one that was made here."""
        return self.origin.get("a" if image is self.image_a else "b", {})


class VotedPairs:
    def __init__(self, database: Database) -> None:
        self._database = database

    def last_vote(self, base: BaseModelRef) -> int:
        """The id of a lineage's newest vote, 0 where there is none."""
        query = select(func.coalesce(func.max(VoteRow.id), 0)).where(VoteRow.base_id == base.id)
        with self._database.reader() as connection:
            return connection.execute(query).scalar_one()

    def page(self, base: BaseModelRef, *, after: int = 0, last_vote: int, limit: int = 500) -> list[VotedPair]:
        """The next page of pairs with votes, by id.

        Args:
            after: only pairs with a larger id.
            last_vote: votes with a larger id do not exist yet for this reader.
            limit: at most so many pairs; fewer mean that these are the last.
        """
        with self._database.reader() as connection:
            rows = connection.execute(_pairs(base, after, limit)).all()
            votes = _votes(connection, rows[0].id, rows[-1].id, last_vote) if rows else {}
        return [_pair_from_row(row, votes.get(row.id, ())) for row in rows]


def _pairs(base: BaseModelRef, after: int, limit: int) -> Any:
    a, b = aliased(ImageRow), aliased(ImageRow)
    reported = exists().where(ReportRow.pair_id == PairRow.id, text(IS_UNCLEARED))
    return (
        select(
            PairRow.id,
            PromptRow.text,
            PairRow.source,
            PairRow.adapter_version,
            PairRow.gold,
            or_(PairRow.retired_at.is_not(None), reported),
            ImportedPairRow.origin,
            *(getattr(a, name) for name in _IMAGE),
            *(getattr(b, name) for name in _IMAGE),
        )
        .join(PromptRow, PromptRow.id == PairRow.prompt_id)
        .join(a, a.id == PairRow.image_a_id)
        .join(b, b.id == PairRow.image_b_id)
        .outerjoin(ImportedPairRow, ImportedPairRow.pair_id == PairRow.id)
        # Sums keep the database from an index in another order, which it would go through whole for every page.
        .where(PairRow.base_id + 0 == base.id, PairRow.num_votes + 0 > 0, PairRow.id > after)
        .order_by(PairRow.id)
        .limit(limit)
    )


def _votes(connection: Connection, first: int, last: int, last_vote: int) -> dict[int, list[ExportVote]]:
    # By way of the assignments, which are indexed by pair; votes are not.
    query = (
        select(
            AssignmentRow.pair_id,
            VoteRow.id,
            VoteRow.annotator_id,
            VoteRow.question,
            VoteRow.purpose,
            VoteRow.choice,
            VoteRow.outcome,
            AssignmentRow.a_on_left,
            VoteRow.strength,
            VoteRow.comment,
            VoteRow.elapsed_ms,
            VoteRow.created_at,
        )
        .select_from(AssignmentRow)
        .join(VoteRow, VoteRow.assignment_id == AssignmentRow.id)
        .where(AssignmentRow.pair_id.between(first, last), VoteRow.id <= last_vote, text(IS_LIVE))
        .order_by(VoteRow.id)
    )
    votes_by_pair: dict[int, list[ExportVote]] = defaultdict(list)
    for pair_id, *values in connection.execute(query):
        votes_by_pair[pair_id].append(ExportVote(*values))
    return votes_by_pair


def _pair_from_row(row: Row[*tuple[Any, ...]], votes: Sequence[ExportVote]) -> VotedPair:
    pair_id, prompt, source, version, gold, reported, origin, *rest = row
    image_a, image_b = (_image(values) for values in (rest[: len(_IMAGE)], rest[len(_IMAGE) :]))
    return VotedPair(pair_id, prompt, image_a, image_b, source, version, gold, bool(reported), votes, origin or {})


def _image(values: Sequence[Any]) -> ImageRef:
    image_id, sha256, latents_sha256, width, height, *provenance = values
    return ImageRef(image_id, sha256, latents_sha256, width, height, Provenance(*provenance))

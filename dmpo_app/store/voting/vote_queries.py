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

from dmpo_app.domain.lineage import BaseModelRef, ImageRef, PairSource, Provenance
from dmpo_app.domain.vote import PREFERENCES, STRENGTHS, Choice, Outcome, Purpose, Question, Strength
from dmpo_app.store import schema
from dmpo_app.store.db.database import Database

ASSIGNMENT = select(
    schema.AssignmentRow.id,
    schema.AssignmentRow.base_id,
    schema.AssignmentRow.annotator_id,
    schema.AssignmentRow.pair_id,
    schema.AssignmentRow.question,
    schema.AssignmentRow.purpose,
    schema.AssignmentRow.a_on_left,
    schema.AssignmentRow.arrangement,
    schema.AssignmentRow.state,
    schema.AssignmentRow.expires_at,
).where(schema.AssignmentRow.public_id == bindparam("public_id"))
LIVE_VOTE = select(
    schema.VoteRow.id, schema.VoteRow.choice, schema.VoteRow.strength, schema.VoteRow.comment, schema.VoteRow.ranking
).where(schema.VoteRow.assignment_id == bindparam("assignment"), text(schema.IS_LIVE))
INSERT_VOTE = insert(schema.VoteRow).returning(schema.VoteRow.id)
MARK_ANSWERED = (
    update(schema.AssignmentRow)
    .where(schema.AssignmentRow.id == bindparam("assignment"))
    .values(state=schema.AssignmentState.ANSWERED)
)
CHANGE_VOTE_COUNT = (
    update(schema.PairRow)
    .where(schema.PairRow.id == bindparam("pair"))
    .values(num_votes=schema.PairRow.num_votes + bindparam("change", type_=BigInteger))
)
LATEST_LIVE = (
    select(schema.VoteRow.id)
    .where(schema.VoteRow.annotator_id == bindparam("annotator_id"), text(schema.IS_LIVE))
    .order_by(schema.VoteRow.id.desc())
    .limit(1)
)

STRENGTH_COUNTS = case(
    *((schema.VoteRow.strength == strength, counts) for strength, counts in STRENGTHS.items() if strength is not None),
    else_=STRENGTHS[None],
)
"""The weight of a vote's strength in a target."""


def is_not_struck() -> ColumnElement[bool]:
    """Condition of the votes that no struck annotator gave."""
    # As for the retired pairs below: a small set, read once, and not even that where nobody is struck.
    struck = select(schema.AnnotatorRow.id).where(text(schema.IS_STRUCK))
    return or_(~struck.exists(), schema.VoteRow.annotator_id.not_in(struck))


def training_conditions() -> tuple[ColumnElement[bool], ...]:
    """Conditions of the votes that rounds learn from; takes `base_id` and `question`."""
    # The retired pairs are few and read once, where a lookup of every vote's pair would cost with each vote. Where
    # there are none, as is usual, not even the set of them is made.
    # Pairs that were imported and have no latents yet are left out the same way.
    retired = select(schema.PairRow.id).where(text(schema.IS_RETIRED))
    unencoded = select(schema.PairRow.id).where(
        schema.PairRow.base_id == bindparam("base_id"), text(schema.IS_UNENCODED)
    )
    return (
        schema.VoteRow.base_id == bindparam("base_id"),
        schema.VoteRow.question == bindparam("question"),
        schema.VoteRow.purpose == Purpose.VOTE,
        schema.VoteRow.outcome.in_(PREFERENCES),
        or_(~retired.exists(), schema.VoteRow.pair_id.not_in(retired)),
        or_(~unencoded.exists(), schema.VoteRow.pair_id.not_in(unencoded)),
        is_not_struck(),
        text(schema.IS_LIVE),  # type: ignore[return-value]  # a condition like the others, though it has no type
    )


_WATERMARK = (
    select(func.coalesce(func.max(schema.RoundRow.last_vote_id), 0))
    .where(schema.RoundRow.base_id == bindparam("base_id"), schema.RoundRow.finished_at.is_not(None))
    .scalar_subquery()
)
COUNT_TRAINED_ON = select(func.count()).select_from(schema.VoteRow).where(*training_conditions())
NEW_PREFERENCES = select(func.count(), func.min(schema.VoteRow.id), func.max(schema.VoteRow.id)).where(
    *training_conditions(), schema.VoteRow.id > _WATERMARK
)
COUNT_NEW = select(func.count()).select_from(
    select(schema.VoteRow.id)
    .where(*training_conditions(), schema.VoteRow.id > _WATERMARK)
    .limit(bindparam("at_most"))
    .subquery()
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
    """A pair with its live votes, oldest first, without those of struck annotators.

    `reported`: by somebody whose report is not cleared; `retired`: by reports that took it and its votes out.
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
    retired: bool
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
        query = select(func.coalesce(func.max(schema.VoteRow.id), 0)).where(schema.VoteRow.base_id == base.id)
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
    a, b = aliased(schema.ImageRow), aliased(schema.ImageRow)
    reported = exists().where(schema.ReportRow.pair_id == schema.PairRow.id, text(schema.IS_UNCLEARED))
    return (
        select(
            schema.PairRow.id,
            schema.PromptRow.text,
            schema.PairRow.source,
            schema.PairRow.adapter_version,
            schema.PairRow.gold,
            or_(schema.PairRow.retired_at.is_not(None), reported),
            schema.PairRow.retired_at.is_not(None),
            schema.ImportedPairRow.origin,
            *(getattr(a, name) for name in _IMAGE),
            *(getattr(b, name) for name in _IMAGE),
        )
        .join(schema.PromptRow, schema.PromptRow.id == schema.PairRow.prompt_id)
        .join(a, a.id == schema.PairRow.image_a_id)
        .join(b, b.id == schema.PairRow.image_b_id)
        .outerjoin(schema.ImportedPairRow, schema.ImportedPairRow.pair_id == schema.PairRow.id)
        # Sums keep the database from an index in another order, which it would go through whole for every page.
        .where(schema.PairRow.base_id + 0 == base.id, schema.PairRow.num_votes + 0 > 0, schema.PairRow.id > after)
        .order_by(schema.PairRow.id)
        .limit(limit)
    )


def _votes(connection: Connection, first: int, last: int, last_vote: int) -> dict[int, list[ExportVote]]:
    # By way of the assignments, which are indexed by pair; votes are not.
    query = (
        select(
            schema.AssignmentRow.pair_id,
            schema.VoteRow.id,
            schema.VoteRow.annotator_id,
            schema.VoteRow.question,
            schema.VoteRow.purpose,
            schema.VoteRow.choice,
            schema.VoteRow.outcome,
            schema.AssignmentRow.a_on_left,
            schema.VoteRow.strength,
            schema.VoteRow.comment,
            schema.VoteRow.elapsed_ms,
            schema.VoteRow.created_at,
        )
        .select_from(schema.AssignmentRow)
        .join(schema.VoteRow, schema.VoteRow.assignment_id == schema.AssignmentRow.id)
        .where(
            schema.AssignmentRow.pair_id.between(first, last),
            schema.VoteRow.id <= last_vote,
            text(schema.IS_LIVE),
            is_not_struck(),
        )
        .order_by(schema.VoteRow.id)
    )
    votes_by_pair: dict[int, list[ExportVote]] = defaultdict(list)
    for pair_id, *values in connection.execute(query):
        votes_by_pair[pair_id].append(ExportVote(*values))
    return votes_by_pair


def _pair_from_row(row: Row[*tuple[Any, ...]], votes: Sequence[ExportVote]) -> VotedPair:
    pair_id, prompt, source, version, gold, reported, retired, origin, *rest = row
    image_a, image_b = (_image(values) for values in (rest[: len(_IMAGE)], rest[len(_IMAGE) :]))
    flags = bool(reported), bool(retired)
    return VotedPair(pair_id, prompt, image_a, image_b, source, version, gold, *flags, votes, origin or {})


def _image(values: Sequence[Any]) -> ImageRef:
    image_id, sha256, latents_sha256, width, height, *provenance = values
    return ImageRef(image_id, sha256, latents_sha256, width, height, Provenance(*provenance))

"""Rows of rounds: reading them, and the checks that every write of the trainer makes first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select, text

from dmpo_app.domain.round import RoundState, RoundStatus
from dmpo_app.errors import Conflict, NotFound
from dmpo_app.store.lease import require_token
from dmpo_app.store.schema import IS_UNFINISHED, AdapterRow, RoundRow, RoundVoteRow, VoteRow

UNFINISHED = (RoundStatus.QUEUED, RoundStatus.RUNNING)

ROUNDS: Select[*tuple[Any, ...]] = select(RoundRow, AdapterRow.version.label("adapter_version")).outerjoin(
    AdapterRow, AdapterRow.round_id == RoundRow.id
)


def round_of(row: Row[*tuple[Any, ...]]) -> RoundState:
    """A round from a row of `ROUNDS`."""
    return RoundState(
        id=row.id,
        status=row.status,
        trigger=row.trigger,
        seed=row.seed,
        step=row.step,
        steps=row.steps,
        loss=row.loss,
        margin=row.margin,
        accuracy=row.accuracy,
        eta_seconds=row.eta_seconds,
        attempts=row.attempts,
        num_votes=row.num_votes,
        last_vote_id=row.last_vote_id,
        parent_version=row.parent_version,
        adapter_version=row.adapter_version,
        reason=row.reason,
        config=row.config,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def find_round(connection: Connection, round_id: int) -> RoundState:
    """Raises NotFound."""
    row = connection.execute(ROUNDS.where(RoundRow.id == round_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no round {round_id}")
    return round_of(row)


def require_none_under_way(connection: Connection, base_id: int) -> None:
    """Raise Conflict when a round of this lineage is queued or running."""
    row = connection.execute(
        select(RoundRow.id, RoundRow.status).where(RoundRow.base_id == base_id, text(IS_UNFINISHED))
    ).one_or_none()
    if row is not None:
        raise Conflict(f"round {row.id} is {row.status.value}; one at a time")


def held_round(connection: Connection, round_id: int, token: int, *, status: Sequence[RoundStatus]) -> RoundState:
    """The round, if `token` holds its lineage now and its status is one of these.

    Raises NotFound, LeaseLost, Conflict.
    """
    base_id = base_of(connection, round_id)
    require_token(connection, base_id, token)
    found = find_round(connection, round_id)
    if found.status not in status:
        allowed = " or ".join(one.value for one in status)
        raise Conflict(f"round {round_id} is {found.status.value}, not {allowed}")
    return found


def base_of(connection: Connection, round_id: int) -> int:
    """The lineage of a round. Raises NotFound."""
    base_id = connection.execute(select(RoundRow.base_id).where(RoundRow.id == round_id)).scalar_one_or_none()
    if base_id is None:
        raise NotFound(f"there is no round {round_id}")
    return base_id


def fix_votes(connection: Connection, round_id: int, votes: Sequence[tuple[int, bool]]) -> None:
    """Record what a round is trained on, for good."""
    rows = [{"round_id": round_id, "vote_id": vote_id, "held_out": held_out} for vote_id, held_out in votes]
    if rows:
        connection.execute(insert(RoundVoteRow), rows)


def newest_vote(connection: Connection, base_id: int) -> int:
    """The id of the lineage's newest vote, 0 without any."""
    query = select(func.coalesce(func.max(VoteRow.id), 0)).where(VoteRow.base_id == base_id)
    return connection.execute(query).scalar_one()

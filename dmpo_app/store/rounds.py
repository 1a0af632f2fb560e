"""Training rounds: asked for, run in slices, finished once.

Whoever writes as the trainer shows its fencing token, and every write checks it in the transaction it writes in.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, insert, select, text, update

from dmpo_app.domain.lineage import AdapterRef, BaseModelRef, NewAdapter
from dmpo_app.domain.round import RoundProgress, RoundState, RoundStatus, Trigger
from dmpo_app.domain.vote import Question
from dmpo_app.errors import BadInput, Conflict, NotFound
from dmpo_app.store.adapters import Adapters
from dmpo_app.store.audit import record_act
from dmpo_app.store.db.database import Database
from dmpo_app.store.lease import require_token
from dmpo_app.store.schema import IS_UNFINISHED, AdapterRow, RoundProgressRow, RoundRow, RoundVoteRow, VoteRow
from dmpo_app.store.voting.vote_statements import COUNT_TRAINED_ON

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


# Built once, since they are run several times a second.
_CURRENT = ROUNDS.where(RoundRow.base_id == bindparam("base_id"), text(IS_UNFINISHED))
_LAST = (
    ROUNDS.where(RoundRow.base_id == bindparam("base_id"), RoundRow.finished_at.is_not(None))
    .order_by(RoundRow.id.desc())
    .limit(1)
)


class Rounds:
    def __init__(self, database: Database, adapters: Adapters, now: Callable[[], datetime]) -> None:
        self._database = database
        self._adapters = adapters
        self._now = now

    def request(
        self,
        base: BaseModelRef,
        trigger: Trigger,
        *,
        question: Question = Question.OVERALL,
        by: str | None = None,
        min_preferences: int = 2,
    ) -> RoundState:
        """Queue a round for the trainer. `by`: the administrator whose act it is, if it is one.

        Raises Conflict when one is under way or there are too few preferences on the question.
        """

        def work(connection: Connection) -> RoundState:
            require_none_under_way(connection, base.id)
            wanted = {"base_id": base.id, "question": question}
            count = connection.execute(COUNT_TRAINED_ON, wanted).scalar_one()
            if count < min_preferences:
                raise Conflict(f"a round needs at least {min_preferences} votes for a side or a tie; there are {count}")
            found = find_round(connection, self._insert(connection, base, trigger))
            if by is not None:
                record_act(connection, by, "train_now", f"round {found.id}", at=found.created_at)
            return found

        return self._database.write(work)

    def start(
        self,
        base: BaseModelRef,
        round_id: int | None,
        *,
        trigger: Trigger,
        seed: int,
        steps: int,
        config: Mapping[str, Any],
        votes: Sequence[tuple[int, bool]],
        parent_version: int,
        token: int,
    ) -> RoundState:
        """Set a round running: the one queued, or a new one when `round_id` is None.

        Its first start fixes its votes (id, whether held out), seed, steps, config and parent. A later one, after a
        kill or a failure, only counts the attempt and leaves those as they were: take them from the answer.
        Raises LeaseLost, NotFound, Conflict (another round is under way, or this one is finished).
        """
        fixed: dict[str, Any] = {
            "seed": seed,
            "steps": steps,
            "config": dict(config),
            "num_votes": len(votes),
            "last_vote_id": max((vote_id for vote_id, _ in votes), default=0),
            "parent_version": parent_version,
        }

        def work(connection: Connection) -> RoundState:
            require_token(connection, base.id, token)
            started = round_id
            if started is None:
                require_none_under_way(connection, base.id)
                started = self._insert(connection, base, trigger)
            found = held_round(connection, started, token, status=UNFINISHED)
            changes: dict[str, Any] = {"status": RoundStatus.RUNNING, "attempts": found.attempts + 1}
            if found.started_at is None:
                changes |= fixed | {"started_at": self._now()}
                fix_votes(connection, started, votes)
            connection.execute(update(RoundRow).where(RoundRow.id == started).values(**changes))
            return find_round(connection, started)

        return self._database.write(work)

    def record(self, round_id: int, progress: RoundProgress, *, token: int) -> None:
        """Note how far a round is. A step done again after a kill replaces what was noted of it.

        Raises LeaseLost, NotFound, Conflict when it is not running, BadInput for a value that is not finite.
        """
        values = {
            "loss": progress.loss,
            "margin": progress.margin,
            "accuracy": progress.accuracy,
            "eta_seconds": progress.eta_seconds,
        }
        numbers = (*values.values(), *progress.health.values(), progress.held_out_loss or 0.0)
        if not all(math.isfinite(value) for value in numbers):
            raise BadInput(f"round {round_id} reported a value that is not finite: {progress}")

        def work(connection: Connection) -> None:
            held_round(connection, round_id, token, status=(RoundStatus.RUNNING,))
            connection.execute(update(RoundRow).where(RoundRow.id == round_id).values(step=progress.step, **values))
            point: dict[str, Any] = {**values, "held_out_loss": progress.held_out_loss, "created_at": self._now()}
            point["health"] = dict(progress.health)
            again = connection.execute(
                update(RoundProgressRow)
                .where(RoundProgressRow.round_id == round_id, RoundProgressRow.step == progress.step)
                .values(**point)
            )
            if not again.rowcount:
                connection.execute(insert(RoundProgressRow).values(round_id=round_id, step=progress.step, **point))

        self._database.write(work)

    def publish(self, round_id: int, adapter: NewAdapter, *, token: int, reason: str | None = None) -> AdapterRef:
        """Finish a round with a new version and make it live, all at once. `reason`: why it ended early, if it did.

        Publishing a published round again answers with its version and writes nothing. Raises LeaseLost, NotFound,
        Conflict when the round is not running.
        """

        def work(connection: Connection) -> AdapterRef:
            found = held_round(connection, round_id, token, status=(RoundStatus.RUNNING, RoundStatus.PUBLISHED))
            base_id = base_of(connection, round_id)
            if found.adapter_version is not None:
                return self._adapters.find(connection, base_id, found.adapter_version)
            at = self._now()
            published = self._adapters.insert(connection, base_id, found, adapter, at=at)
            self._finish(connection, round_id, RoundStatus.PUBLISHED, reason=reason, at=at)
            return published

        return self._database.write(work)

    def refuse(self, round_id: int, reason: str, *, token: int) -> None:
        """Finish a round without a version, for it was no better. Raises LeaseLost, NotFound, Conflict."""

        def work(connection: Connection) -> None:
            held_round(connection, round_id, token, status=(RoundStatus.RUNNING,))
            self._finish(connection, round_id, RoundStatus.REFUSED, reason=reason, at=self._now())

        self._database.write(work)

    def fail(self, round_id: int, reason: str, *, token: int, final: bool) -> None:
        """Give a round up, or queue it for another attempt when not `final`. Raises LeaseLost, NotFound, Conflict."""

        def work(connection: Connection) -> None:
            found = held_round(connection, round_id, token, status=UNFINISHED)
            changes: dict[str, Any] = {"reason": reason, "eta_seconds": None, "status": RoundStatus.QUEUED}
            if final:
                changes |= {"status": RoundStatus.FAILED, "finished_at": self._now()}
            if final and found.started_at is None:  # it took no votes: those there are must not start it over at once
                changes["last_vote_id"] = newest_vote(connection, base_of(connection, round_id))
            connection.execute(update(RoundRow).where(RoundRow.id == round_id).values(**changes))

        self._database.write(work)

    def current(self, base: BaseModelRef) -> RoundState | None:
        """The round that is queued or running."""
        return self._first(_CURRENT, base)

    def last(self, base: BaseModelRef) -> RoundState | None:
        """The round that finished last."""
        return self._first(_LAST, base)

    def get(self, round_id: int) -> RoundState:
        """Raises NotFound."""
        with self._database.reader() as connection:
            return find_round(connection, round_id)

    def list(self, base: BaseModelRef) -> builtins.list[RoundState]:
        """Every round of a lineage, oldest first."""
        with self._database.reader() as connection:
            rows = connection.execute(ROUNDS.where(RoundRow.base_id == base.id).order_by(RoundRow.id))
            return [round_of(row) for row in rows]

    def votes_of(self, round_id: int) -> builtins.list[tuple[int, bool]]:
        """The votes a round was started with, by id, and whether each is held out of training."""
        query = (
            select(RoundVoteRow.vote_id, RoundVoteRow.held_out)
            .where(RoundVoteRow.round_id == round_id)
            .order_by(RoundVoteRow.vote_id)
        )
        with self._database.reader() as connection:
            return [(row.vote_id, row.held_out) for row in connection.execute(query)]

    def progress(self, round_id: int) -> builtins.list[RoundProgress]:
        """What was noted of a round, by step."""
        query = (
            select(
                RoundProgressRow.step,
                RoundProgressRow.loss,
                RoundProgressRow.margin,
                RoundProgressRow.accuracy,
                RoundProgressRow.eta_seconds,
                RoundProgressRow.held_out_loss,
                RoundProgressRow.health,
            )
            .where(RoundProgressRow.round_id == round_id)
            .order_by(RoundProgressRow.step)
        )
        with self._database.reader() as connection:
            return [RoundProgress(*row) for row in connection.execute(query)]

    def _first(self, query: Select[*tuple[Any, ...]], base: BaseModelRef) -> RoundState | None:
        with self._database.reader() as connection:
            row = connection.execute(query, {"base_id": base.id}).first()
        return None if row is None else round_of(row)

    def _insert(self, connection: Connection, base: BaseModelRef, trigger: Trigger) -> int:
        return connection.execute(
            insert(RoundRow)
            .values(base_id=base.id, status=RoundStatus.QUEUED, trigger=trigger, config={}, created_at=self._now())
            .returning(RoundRow.id)
        ).scalar_one()

    def _finish(
        self, connection: Connection, round_id: int, status: RoundStatus, *, reason: str | None, at: datetime
    ) -> None:
        connection.execute(
            update(RoundRow)
            .where(RoundRow.id == round_id)
            .values(status=status, reason=reason, eta_seconds=None, finished_at=at)
        )

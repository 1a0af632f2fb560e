"""Training rounds: requested, run in slices, finished once.

Whoever writes as the trainer shows its fencing token, and every write checks it in the transaction it writes in.
"""

import builtins
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, insert, select, text, update

from dmpo_app.domain import lineage
from dmpo_app.domain.judging import NewVerdict
from dmpo_app.domain.vote import Question
from dmpo_app.errors import BadInputError, ConflictError, NotFoundError
from dmpo_app.store import schema
from dmpo_app.store.adapters import Adapters, require_token
from dmpo_app.store.audit import record_act
from dmpo_app.store.db.database import Database
from dmpo_app.store.voting.vote_queries import COUNT_TRAINED_ON

MIN_PREFERENCES = 2
"""The votes for a side or a tie that a round needs."""
UNFINISHED = (lineage.RoundStatus.QUEUED, lineage.RoundStatus.RUNNING)

ROUNDS: Select[*tuple[Any, ...]] = select(
    schema.RoundRow, schema.AdapterRow.version.label("adapter_version")
).outerjoin(schema.AdapterRow, schema.AdapterRow.round_id == schema.RoundRow.id)


def round_from_row(row: Row[*tuple[Any, ...]]) -> lineage.RoundState:
    """Make a RoundState from a row of `ROUNDS`."""
    return lineage.RoundState(
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


def find_round(connection: Connection, round_id: int) -> lineage.RoundState:
    """Get a round by id. Raises NotFoundError."""
    row = connection.execute(ROUNDS.where(schema.RoundRow.id == round_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no round {round_id}")
    return round_from_row(row)


def require_no_open_round(connection: Connection, base_id: int) -> None:
    """Raise ConflictError when a round of this lineage is queued or running."""
    row = connection.execute(
        select(schema.RoundRow.id, schema.RoundRow.status).where(
            schema.RoundRow.base_id == base_id, text(schema.IS_UNFINISHED)
        )
    ).one_or_none()
    if row is not None:
        raise ConflictError(f"round {row.id} is {row.status.value}; one at a time")


def require_held_round(
    connection: Connection, round_id: int, token: int, *, status: Sequence[lineage.RoundStatus]
) -> lineage.RoundState:
    """Require that `token` holds the round's lineage and its status is one of these; returns the round.

    Raises NotFoundError, LeaseLostError, ConflictError.
    """
    base_id = get_base_id(connection, round_id)
    require_token(connection, base_id, token)
    round_state = find_round(connection, round_id)
    if round_state.status not in status:
        allowed = " or ".join(one.value for one in status)
        raise ConflictError(f"round {round_id} is {round_state.status.value}, not {allowed}")
    return round_state


def get_base_id(connection: Connection, round_id: int) -> int:
    """The base model id of a round. Raises NotFoundError."""
    base_id = connection.execute(
        select(schema.RoundRow.base_id).where(schema.RoundRow.id == round_id)
    ).scalar_one_or_none()
    if base_id is None:
        raise NotFoundError(f"there is no round {round_id}")
    return base_id


def record_round_votes(connection: Connection, round_id: int, votes: Sequence[tuple[int, bool]]) -> None:
    """Record the votes that a round is trained on, for good."""
    rows = [{"round_id": round_id, "vote_id": vote_id, "held_out": held_out} for vote_id, held_out in votes]
    if rows:
        connection.execute(insert(schema.RoundVoteRow), rows)


def newest_vote_id(connection: Connection, base_id: int) -> int:
    """The id of the lineage's newest vote, 0 without any."""
    query = select(func.coalesce(func.max(schema.VoteRow.id), 0)).where(schema.VoteRow.base_id == base_id)
    return connection.execute(query).scalar_one()


# Built once, since they are run several times a second.
_CURRENT = ROUNDS.where(schema.RoundRow.base_id == bindparam("base_id"), text(schema.IS_UNFINISHED))
_LAST = (
    ROUNDS.where(schema.RoundRow.base_id == bindparam("base_id"), schema.RoundRow.finished_at.is_not(None))
    .order_by(schema.RoundRow.id.desc())
    .limit(1)
)


class Rounds:
    def __init__(self, database: Database, adapters: Adapters, now: Callable[[], datetime]) -> None:
        self._database = database
        self._adapters = adapters
        self._now = now

    def request(
        self,
        base: lineage.BaseModelRef,
        trigger: lineage.Trigger,
        *,
        question: Question = Question.OVERALL,
        by: str | None = None,
        min_preferences: int = MIN_PREFERENCES,
    ) -> lineage.RoundState:
        """Queue a round for the trainer. `by`: the administrator whose act it is, if it is one.

        Raises ConflictError when one is under way or there are too few preferences on the question.
        """

        def work(connection: Connection) -> lineage.RoundState:
            require_no_open_round(connection, base.id)
            parameters = {"base_id": base.id, "question": question}
            count = connection.execute(COUNT_TRAINED_ON, parameters).scalar_one()
            if count < min_preferences:
                raise ConflictError(
                    f"a round needs at least {min_preferences} votes for a side or a tie; there are {count}"
                )
            round_state = find_round(connection, self._insert(connection, base, trigger))
            if by is not None:
                record_act(connection, by, "train_now", f"round {round_state.id}", at=round_state.created_at)
            return round_state

        return self._database.write(work)

    def start(
        self,
        base: lineage.BaseModelRef,
        round_id: int | None,
        *,
        trigger: lineage.Trigger,
        seed: int,
        steps: int,
        config: Mapping[str, Any],
        votes: Sequence[tuple[int, bool]],
        parent_version: int,
        token: int,
    ) -> lineage.RoundState:
        """Set a round running: the one queued, or a new one when `round_id` is None.

        Its first start fixes its votes (id, whether held out), seed, steps, config and parent. A later one, after a
        kill or a failure, only counts the attempt and leaves those as they were: take them from the result.
        Raises LeaseLostError, NotFoundError, ConflictError (another round is under way, or this one is finished).
        """
        first_start_values: dict[str, Any] = {
            "seed": seed,
            "steps": steps,
            "config": dict(config),
            "num_votes": len(votes),
            "last_vote_id": max((vote_id for vote_id, _ in votes), default=0),
            "parent_version": parent_version,
        }

        def work(connection: Connection) -> lineage.RoundState:
            require_token(connection, base.id, token)
            started_id = round_id
            if started_id is None:
                require_no_open_round(connection, base.id)
                started_id = self._insert(connection, base, trigger)
            round_state = require_held_round(connection, started_id, token, status=UNFINISHED)
            changes: dict[str, Any] = {"status": lineage.RoundStatus.RUNNING, "attempts": round_state.attempts + 1}
            if round_state.started_at is None:
                changes |= first_start_values | {"started_at": self._now()}
                record_round_votes(connection, started_id, votes)
            connection.execute(update(schema.RoundRow).where(schema.RoundRow.id == started_id).values(**changes))
            return find_round(connection, started_id)

        return self._database.write(work)

    def record(self, round_id: int, progress: lineage.RoundProgress, *, token: int) -> None:
        """Record the progress of a round. A step done again after a kill replaces its earlier record.

        Raises LeaseLostError, NotFoundError, ConflictError when it is not running, BadInputError for a value that is
        not finite.
        """
        values = {
            "loss": progress.loss,
            "margin": progress.margin,
            "accuracy": progress.accuracy,
            "eta_seconds": progress.eta_seconds,
        }
        numbers = (*values.values(), *progress.health.values(), progress.held_out_loss or 0.0)
        if not all(math.isfinite(value) for value in numbers):
            raise BadInputError(f"round {round_id} reported a value that is not finite: {progress}")

        def work(connection: Connection) -> None:
            require_held_round(connection, round_id, token, status=(lineage.RoundStatus.RUNNING,))
            connection.execute(
                update(schema.RoundRow).where(schema.RoundRow.id == round_id).values(step=progress.step, **values)
            )
            point: dict[str, Any] = {**values, "held_out_loss": progress.held_out_loss, "created_at": self._now()}
            point["health"] = dict(progress.health)
            replacement = connection.execute(
                update(schema.RoundProgressRow)
                .where(schema.RoundProgressRow.round_id == round_id, schema.RoundProgressRow.step == progress.step)
                .values(**point)
            )
            if not replacement.rowcount:
                connection.execute(
                    insert(schema.RoundProgressRow).values(round_id=round_id, step=progress.step, **point)
                )

        self._database.write(work)

    def publish(
        self,
        round_id: int,
        adapter: lineage.NewAdapter,
        *,
        token: int,
        reason: str | None = None,
        is_held: bool = False,
        proof: NewVerdict | None = None,
    ) -> lineage.AdapterRef:
        """Finish a round with a new version and make it live, all at once. `reason`: why it ended early, if it did.

        `is_held`: it is held back instead, unless `proof`, the verdict of the held-out votes, says that it is better
        than the live version; the proof's own `version` is not known yet and is ignored.

        Publishing a published round again returns its version and writes nothing. Raises LeaseLostError, NotFoundError,
        ConflictError when the round is not running.
        """

        def work(connection: Connection) -> lineage.AdapterRef:
            round_state = require_held_round(
                connection, round_id, token, status=(lineage.RoundStatus.RUNNING, lineage.RoundStatus.PUBLISHED)
            )
            base_id = get_base_id(connection, round_id)
            if round_state.adapter_version is not None:
                return self._adapters.find(connection, base_id, round_state.adapter_version)
            at = self._now()
            adapter_ref = self._adapters.insert(
                connection, base_id, round_state, adapter, at=at, is_held=is_held, proof=proof
            )
            self._finish(connection, round_id, lineage.RoundStatus.PUBLISHED, reason=reason, at=at)
            return adapter_ref

        return self._database.write(work)

    def refuse(self, round_id: int, reason: str, *, token: int) -> None:
        """Finish a round that was no better, without a version. Raises LeaseLostError, NotFoundError, ConflictError."""

        def work(connection: Connection) -> None:
            require_held_round(connection, round_id, token, status=(lineage.RoundStatus.RUNNING,))
            self._finish(connection, round_id, lineage.RoundStatus.REFUSED, reason=reason, at=self._now())

        self._database.write(work)

    def fail(self, round_id: int, reason: str, *, token: int, final: bool) -> None:
        """Fail a round, or queue it for another attempt when not `final`.

        Raises LeaseLostError, NotFoundError, ConflictError.
        """

        def work(connection: Connection) -> None:
            round_state = require_held_round(connection, round_id, token, status=UNFINISHED)
            changes: dict[str, Any] = {"reason": reason, "eta_seconds": None, "status": lineage.RoundStatus.QUEUED}
            if final:
                changes |= {"status": lineage.RoundStatus.FAILED, "finished_at": self._now()}
            if (
                final and round_state.started_at is None
            ):  # it took no votes: those there are must not start it over at once
                changes["last_vote_id"] = newest_vote_id(connection, get_base_id(connection, round_id))
            connection.execute(update(schema.RoundRow).where(schema.RoundRow.id == round_id).values(**changes))

        self._database.write(work)

    def current(self, base: lineage.BaseModelRef) -> lineage.RoundState | None:
        """The round that is queued or running."""
        return self._first(_CURRENT, base)

    def last(self, base: lineage.BaseModelRef) -> lineage.RoundState | None:
        """The round that finished last."""
        return self._first(_LAST, base)

    def get(self, round_id: int) -> lineage.RoundState:
        """Get a round by id. Raises NotFoundError."""
        with self._database.reader() as connection:
            return find_round(connection, round_id)

    def count_by_status(self, base: lineage.BaseModelRef) -> dict[lineage.RoundStatus, int]:
        """Count the rounds of a lineage by their status; those of which there are none are left out."""
        query = select(schema.RoundRow.status, func.count()).where(schema.RoundRow.base_id == base.id)
        with self._database.reader() as connection:
            return {row[0]: row[1] for row in connection.execute(query.group_by(schema.RoundRow.status))}

    def list(self, base: lineage.BaseModelRef) -> builtins.list[lineage.RoundState]:
        """List every round of a lineage, oldest first."""
        with self._database.reader() as connection:
            rows = connection.execute(ROUNDS.where(schema.RoundRow.base_id == base.id).order_by(schema.RoundRow.id))
            return [round_from_row(row) for row in rows]

    def votes(self, round_id: int) -> builtins.list[tuple[int, bool]]:
        """List the votes a round was started with, by id, and whether each is held out of training."""
        query = (
            select(schema.RoundVoteRow.vote_id, schema.RoundVoteRow.held_out)
            .where(schema.RoundVoteRow.round_id == round_id)
            .order_by(schema.RoundVoteRow.vote_id)
        )
        with self._database.reader() as connection:
            return [(row.vote_id, row.held_out) for row in connection.execute(query)]

    def list_progress(self, round_id: int) -> builtins.list[lineage.RoundProgress]:
        """List the recorded progress of a round, by step."""
        query = (
            select(
                schema.RoundProgressRow.step,
                schema.RoundProgressRow.loss,
                schema.RoundProgressRow.margin,
                schema.RoundProgressRow.accuracy,
                schema.RoundProgressRow.eta_seconds,
                schema.RoundProgressRow.held_out_loss,
                schema.RoundProgressRow.health,
            )
            .where(schema.RoundProgressRow.round_id == round_id)
            .order_by(schema.RoundProgressRow.step)
        )
        with self._database.reader() as connection:
            return [lineage.RoundProgress(*row) for row in connection.execute(query)]

    def _first(self, query: Select[*tuple[Any, ...]], base: lineage.BaseModelRef) -> lineage.RoundState | None:
        with self._database.reader() as connection:
            row = connection.execute(query, {"base_id": base.id}).first()
        return None if row is None else round_from_row(row)

    def _insert(self, connection: Connection, base: lineage.BaseModelRef, trigger: lineage.Trigger) -> int:
        return connection.execute(
            insert(schema.RoundRow)
            .values(
                base_id=base.id, status=lineage.RoundStatus.QUEUED, trigger=trigger, config={}, created_at=self._now()
            )
            .returning(schema.RoundRow.id)
        ).scalar_one()

    def _finish(
        self, connection: Connection, round_id: int, status: lineage.RoundStatus, *, reason: str | None, at: datetime
    ) -> None:
        connection.execute(
            update(schema.RoundRow)
            .where(schema.RoundRow.id == round_id)
            .values(status=status, reason=reason, eta_seconds=None, finished_at=at)
        )

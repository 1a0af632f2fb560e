"""Versions of the adapter, their way to being live, and the lease that lets one trainer at a time write them.

A verdict about a version is acted on in one transaction, which looks again at what the verdict was about: the write
transactions of a database take turns, so of two who come with the same verdict one is late and does nothing.

Time only decides when another may take over. What keeps a trainer that was merely slow from writing is its fencing
token: it grows with every holder, and each of the trainer's writes checks it within its own transaction.
"""

import builtins
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, insert, select, update

from dmpo_app.domain.judging import NewVerdict, Verdict, VerdictAction, VersionState
from dmpo_app.domain.lineage import BASE_VERSION, AdapterRef, BaseModelRef, NewAdapter, RoundState
from dmpo_app.errors import BadInputError, LeaseLostError, NotFoundError
from dmpo_app.store import schema
from dmpo_app.store.audit import record_act
from dmpo_app.store.db.database import Database
from dmpo_app.store.judging.verdicts import DECIDERS, record_verdict
from dmpo_app.store.judging.version_states import (
    ROUND_AUTHOR,
    find_candidate,
    find_live_version,
    find_states,
    find_version_before,
    is_chosen_by_hand,
)
from dmpo_app.store.voting.taken_back import would_bring_back

_ADAPTERS: Select[*tuple[Any, ...]] = (
    select(schema.AdapterRow, schema.BaseModelRow.fingerprint)
    .join(schema.BaseModelRow, schema.BaseModelRow.id == schema.AdapterRow.base_id)
    .where(schema.AdapterRow.version > BASE_VERSION)
)
# Statements that are run several times a second are built once: building one costs more than running it.
_LIST = _ADAPTERS.where(schema.AdapterRow.base_id == bindparam("base_id")).order_by(schema.AdapterRow.version)


class Adapters:
    def __init__(self, database: Database, home: Path, now: Callable[[], datetime]) -> None:
        self._database = database
        self._home = home
        self._now = now

    def root(self, base: BaseModelRef) -> Path:
        """The folder of this lineage's adapters, created if missing."""
        root = self._root(base.fingerprint)
        root.mkdir(parents=True, exist_ok=True)
        return root

    def list(self, base: BaseModelRef) -> builtins.list[AdapterRef]:
        """List every published version in order, without version 0, which is the base model."""
        with self._database.reader() as connection:
            return [self._adapter_from_row(row) for row in connection.execute(_LIST, {"base_id": base.id})]

    def get(self, base: BaseModelRef, version: int) -> AdapterRef:
        """Get a published version. Raises NotFoundError, for version 0 too."""
        with self._database.reader() as connection:
            return self.find(connection, base.id, version)

    def vote_ids(self, base: BaseModelRef, version: int) -> builtins.list[int]:
        """The ids of the votes a version was trained on."""
        query = (
            select(schema.AdapterVoteRow.vote_id)
            .where(schema.AdapterVoteRow.base_id == base.id, schema.AdapterVoteRow.version == version)
            .order_by(schema.AdapterVoteRow.vote_id)
        )
        with self._database.reader() as connection:
            return builtins.list(connection.execute(query).scalars())

    def next_version(self, base: BaseModelRef) -> int:
        """The number of the next published version, if nothing is published before it."""
        with self._database.reader() as connection:
            return _newest_version(connection, base.id) + 1

    def live_version(self, base: BaseModelRef) -> int:
        """The version that is live; 0 until one was published."""
        with self._database.reader() as connection:
            return find_live_version(connection, base.id)

    def set_live(self, base: BaseModelRef, version: int, by: str) -> None:
        """Make a version live, 0 for the base model: an act of `by`. Nothing is recorded when it is already.

        Raises NotFoundError.
        """

        def work(connection: Connection) -> None:
            version_query = select(schema.AdapterRow.version).where(
                schema.AdapterRow.base_id == base.id, schema.AdapterRow.version == version
            )
            if connection.execute(version_query).first() is None:
                raise NotFoundError(
                    f"there is no version {version}; the newest is {_newest_version(connection, base.id)}"
                )
            if find_live_version(connection, base.id) != version:
                at = self._now()
                _make_live(connection, base.id, version, by, at=at)
                record_act(connection, by, "make_live", f"version {version}", at=at)

        self._database.write(work)

    def states(self, base: BaseModelRef) -> dict[int, VersionState]:
        """The state of every version, the base model's too, by version."""
        with self._database.reader() as connection:
            return find_states(connection, base.id)

    def candidate(self, base: BaseModelRef) -> int | None:
        """The version that is held back and judged now: the newest that was never live and not rejected, if any.

        It is newer than the live version. An older one waits until the newer is decided.
        """
        with self._database.reader() as connection:
            return find_candidate(connection, base.id)

    def version_before(self, base: BaseModelRef, version: int) -> int | None:
        """The version that was live before this one went live for the first time; None for the base model.

        None also for one that was never live. Going back from version to version this way comes to an end.
        """
        with self._database.reader() as connection:
            return find_version_before(connection, base.id, version)

    def is_chosen_by_hand(self, base: BaseModelRef, version: int) -> bool:
        """True when an administrator ever made this version live."""
        with self._database.reader() as connection:
            return is_chosen_by_hand(connection, base.id, version)

    def would_bring_back(self, base: BaseModelRef, version: int, *, live: int) -> bool:
        """True when a version learned from a vote that was taken back and from which the live one did not learn."""
        with self._database.reader() as connection:
            return would_bring_back(connection, base.id, version, live)

    def promote(self, base: BaseModelRef, verdict: NewVerdict) -> bool:
        """Make the candidate live that was proven better than the live version; False when that is decided already.

        It is when the live version or the candidate is another one by now, and when the candidate would bring votes
        back that were taken back.
        """
        return self._decide_candidate(base, verdict, Verdict.BETTER, VerdictAction.PROMOTED)

    def reject(self, base: BaseModelRef, verdict: NewVerdict) -> bool:
        """Reject the candidate that was proven worse than the live version; False as in `promote`."""
        return self._decide_candidate(base, verdict, Verdict.WORSE, VerdictAction.REJECTED)

    def roll_back(self, base: BaseModelRef, verdict: NewVerdict) -> bool:
        """Bring back the version before the live one, which was proven worse; False when that is decided already.

        It is when another version is live by now, or this one was made live by an administrator, whose choice stays;
        and where the one before would bring votes back that were taken back: it comes back by nobody's duels.
        """
        _require(verdict, Verdict.WORSE)

        def work(connection: Connection) -> bool:
            version, before = verdict.version, verdict.other_version
            if (
                find_live_version(connection, base.id) != version
                or find_version_before(connection, base.id, version) != before
                or is_chosen_by_hand(connection, base.id, version)
                or would_bring_back(connection, base.id, before, version)
            ):
                return False
            self._record_decision(connection, base.id, verdict, VerdictAction.ROLLED_BACK, goes_live=before)
            return True

        return self._database.write(work)

    def _decide_candidate(
        self, base: BaseModelRef, verdict: NewVerdict, expected: Verdict, action: VerdictAction
    ) -> bool:
        _require(verdict, expected)

        def work(connection: Connection) -> bool:
            if (
                find_live_version(connection, base.id) != verdict.other_version
                or find_candidate(connection, base.id) != verdict.version
            ):
                return False
            goes_live = verdict.version if action is VerdictAction.PROMOTED else None
            if goes_live is not None and would_bring_back(connection, base.id, goes_live, verdict.other_version):
                return False
            self._record_decision(connection, base.id, verdict, action, goes_live=goes_live)
            return True

        return self._database.write(work)

    def _record_decision(
        self,
        connection: Connection,
        base_id: int,
        verdict: NewVerdict,
        action: VerdictAction,
        *,
        goes_live: int | None,
    ) -> None:
        at, by = self._now(), DECIDERS[verdict.evidence]
        record_verdict(connection, base_id, verdict, action, at=at)
        if goes_live is not None:
            _make_live(connection, base_id, goes_live, by, at=at)
        subject = f"version {verdict.version} against version {verdict.other_version}"
        record_act(connection, by, _ACTS[action], subject, at=at)

    def find(self, connection: Connection, base_id: int, version: int) -> AdapterRef:
        """Get a version as a part of a transaction. Raises NotFoundError."""
        row = connection.execute(
            _ADAPTERS.where(schema.AdapterRow.base_id == base_id, schema.AdapterRow.version == version)
        ).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no adapter version {version} of this base model")
        return self._adapter_from_row(row)

    def insert(
        self,
        connection: Connection,
        base_id: int,
        round_state: RoundState,
        adapter: NewAdapter,
        *,
        at: datetime,
        is_held: bool = False,
        proof: NewVerdict | None = None,
    ) -> AdapterRef:
        """Record a version with the votes behind it and make it live, as a part of the round's last transaction.

        `is_held`: it does not go live unless `proof` says that it is better than what is live now.
        """
        version = _newest_version(connection, base_id) + 1
        is_proven_better = (
            proof is not None
            and proof.verdict is Verdict.BETTER
            and proof.other_version == find_live_version(connection, base_id)
        )
        connection.execute(
            insert(schema.AdapterRow).values(
                base_id=base_id,
                version=version,
                parent=adapter.parent,
                folder=adapter.folder_name,
                sha256=adapter.sha256,
                round_id=round_state.id,
                num_votes=len(adapter.vote_ids),
                proven=adapter.proven,
                is_held=is_held and not is_proven_better,
                metrics=dict(adapter.metrics),
                config=dict(round_state.config),
                created_at=at,
            )
        )
        votes = [{"base_id": base_id, "version": version, "vote_id": vote_id} for vote_id in adapter.vote_ids]
        if votes:
            connection.execute(insert(schema.AdapterVoteRow), votes)
        if not is_held:
            _make_live(connection, base_id, version, f"{ROUND_AUTHOR}{round_state.id}", at=at)
        elif proof is not None and is_proven_better:
            decided = replace(proof, version=version)
            self._record_decision(connection, base_id, decided, VerdictAction.PROMOTED, goes_live=version)
        return self.find(connection, base_id, version)

    def _root(self, fingerprint: str) -> Path:
        return self._home / "adapters" / fingerprint[:12]

    def _adapter_from_row(self, row: Row[*tuple[Any, ...]]) -> AdapterRef:
        return AdapterRef(
            version=row.version,
            parent=row.parent,
            folder=self._root(row.fingerprint) / row.folder,
            sha256=row.sha256,
            round_id=row.round_id,
            num_votes=row.num_votes,
            proven=row.proven,
            metrics=row.metrics,
            created_at=row.created_at,
            is_held=row.is_held,
        )


def _newest_version(connection: Connection, base_id: int) -> int:
    query = select(func.coalesce(func.max(schema.AdapterRow.version), BASE_VERSION)).where(
        schema.AdapterRow.base_id == base_id
    )
    return connection.execute(query).scalar_one()


_ACTS = {VerdictAction.PROMOTED: "promote", VerdictAction.REJECTED: "reject", VerdictAction.ROLLED_BACK: "roll_back"}


def _require(verdict: NewVerdict, expected: Verdict) -> None:
    if verdict.verdict is not expected:
        raise BadInputError(
            f"version {verdict.version} was found {verdict.verdict.value}; this decision is about one that was found "
            f"{expected.value}"
        )


def _make_live(connection: Connection, base_id: int, version: int, by: str, *, at: datetime) -> None:
    connection.execute(insert(schema.LiveChangeRow).values(base_id=base_id, version=version, by=by, created_at=at))


class Lease:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def acquire(self, base: BaseModelRef, owner: str, *, lease_seconds: float) -> int | None:
        """Acquire the lease: a token greater than any before, or None while another owner's lease is fresh."""

        def work(connection: Connection) -> int | None:
            now = self._now()
            row = connection.execute(
                select(schema.LeaseRow.owner, schema.LeaseRow.token, schema.LeaseRow.expires_at).where(
                    schema.LeaseRow.base_id == base.id
                )
            ).one_or_none()
            if row is not None and row.owner not in (None, owner) and row.expires_at > now:
                return None
            token = 1 if row is None else row.token + 1
            lease_values = {
                "owner": owner,
                "token": token,
                "lease_seconds": lease_seconds,
                "expires_at": now + timedelta(seconds=lease_seconds),
            }
            if row is None:
                connection.execute(insert(schema.LeaseRow).values(base_id=base.id, **lease_values))
            else:
                connection.execute(
                    update(schema.LeaseRow).where(schema.LeaseRow.base_id == base.id).values(**lease_values)
                )
            return token

        return self._database.write(work)

    def renew(self, base: BaseModelRef, token: int) -> None:
        """Renew the lease for as long again. Raises LeaseLostError."""

        def work(connection: Connection) -> None:
            seconds = require_token(connection, base.id, token)
            connection.execute(
                update(schema.LeaseRow)
                .where(schema.LeaseRow.base_id == base.id)
                .values(expires_at=self._now() + timedelta(seconds=seconds))
            )

        self._database.write(work)

    def release(self, base: BaseModelRef, token: int) -> None:
        """Release the lease; its token is invalid afterwards. Raises LeaseLostError."""

        def work(connection: Connection) -> None:
            require_token(connection, base.id, token)
            connection.execute(
                update(schema.LeaseRow)
                .where(schema.LeaseRow.base_id == base.id)
                .values(owner=None, expires_at=self._now())
            )

        self._database.write(work)


def require_token(connection: Connection, base_id: int, token: int) -> float:
    """Raise LeaseLostError unless `token` holds the lineage now; returns the lease's length in seconds."""
    row = connection.execute(
        select(schema.LeaseRow.owner, schema.LeaseRow.token, schema.LeaseRow.lease_seconds).where(
            schema.LeaseRow.base_id == base_id
        )
    ).one_or_none()
    if row is None or row.owner is None or row.token != token:
        holder = "nobody" if row is None or row.owner is None else f"{row.owner} with token {row.token}"
        raise LeaseLostError(f"the trainer with token {token} may not write any more: {holder} holds the lineage now")
    return float(row.lease_seconds)

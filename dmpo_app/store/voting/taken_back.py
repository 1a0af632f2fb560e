"""Votes that were taken back after a version had learned from them, by version.

Taken back is a vote that its owner undid or withdrew. A vote of a struck annotator, or on a pair that reports have
retired, counts no more either, and is counted with them. A version that started from another one's weights (a warm
start) has learned from the votes behind those too.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import CompoundSelect, Connection, Row, Select, exists, func, or_, select, text, union

from dmpo_app.domain.judging import VersionState
from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef, TakenBack, Trigger
from dmpo_app.store import schema
from dmpo_app.store.db.database import Database
from dmpo_app.store.judging.version_states import find_live_version, find_states

EVER = datetime(1970, 1, 1, tzinfo=UTC)
"""A time before every vote."""
_PROVEN_WORSE = (VersionState.REJECTED, VersionState.ROLLED_BACK)


class TakenBackVotes:
    def __init__(self, database: Database) -> None:
        self._database = database

    def count(self, base: BaseModelRef, version: int, *, since: datetime = EVER) -> int:
        """Count the votes that a version learned from and that were taken back, all or after a time."""
        with self._database.reader() as connection:
            chain = _weights_from(connection, base.id, version)
            return _count(connection, base.id, chain, since) if chain else 0

    def counts(self, base: BaseModelRef) -> dict[int, int]:
        """Count them for every version that learned from any; the others are left out."""
        with self._database.reader() as connection:
            return _counts(connection, base.id)

    def list_versions(self) -> list[TakenBack]:
        """List the versions that learned from any, of every lineage, by base model and version."""
        with self._database.reader() as connection:
            models = connection.execute(select(schema.BaseModelRow.id, schema.BaseModelRow.source)).all()
            return [
                TakenBack(source, version, votes, is_live=version == find_live_version(connection, base_id))
                for base_id, source in models
                for version, votes in sorted(_counts(connection, base_id).items())
            ]

    def versions_of(self, base: BaseModelRef, annotator_id: int) -> list[int]:
        """The versions that learned from votes which this annotator has undone or withdrawn."""
        query = (
            select(schema.AdapterVoteRow.version)
            .distinct()
            .join(schema.VoteRow, schema.VoteRow.id == schema.AdapterVoteRow.vote_id)
            .where(
                schema.VoteRow.annotator_id == annotator_id,
                schema.VoteRow.base_id == base.id,
                text(schema.IS_TAKEN_BACK),
            )
        )
        with self._database.reader() as connection:
            from_votes = set(connection.execute(query).scalars())
            parents = _warm_parents(connection, base.id)
        return [version for version in sorted(parents) if from_votes.intersection(_chain(parents, version))]

    def newest_clean(self, base: BaseModelRef, *, before: int) -> int:
        """The newest version before this one that was live and learned from none of them; 0, the base, at last.

        One that was proven worse does not come back.
        """
        has_been_live = exists().where(
            schema.LiveChangeRow.base_id == schema.AdapterRow.base_id,
            schema.LiveChangeRow.version == schema.AdapterRow.version,
        )
        query = (
            select(schema.AdapterRow.version)
            .where(schema.AdapterRow.base_id == base.id, schema.AdapterRow.version < before, has_been_live)
            .order_by(schema.AdapterRow.version.desc())
        )
        with self._database.reader() as connection:
            unfit = {*_counts(connection, base.id)}
            unfit |= {one for one, state in find_states(connection, base.id).items() if state in _PROVEN_WORSE}
            return next((one for one in connection.execute(query).scalars() if one not in unfit), BASE_VERSION)

    def last_attempt(self, base: BaseModelRef) -> datetime | None:
        """The time at which the last finished round to leave such votes out was asked for; None without any."""
        query = (
            select(schema.RoundRow.created_at)
            .where(
                schema.RoundRow.base_id == base.id,
                schema.RoundRow.trigger == Trigger.WITHDRAWAL,
                schema.RoundRow.finished_at.is_not(None),
            )
            .order_by(schema.RoundRow.id.desc())
            .limit(1)
        )
        with self._database.reader() as connection:
            return connection.execute(query).scalar_one_or_none()


def would_bring_back(connection: Connection, base_id: int, version: int, live: int) -> bool:
    """True when this version learned from a vote that was taken back, and from which the live one did not learn.

    As a part of a transaction. Such a version does not go live by itself.
    """
    chains = (_weights_from(connection, base_id, one) for one in (version, live))
    ours, theirs = (
        select(schema.AdapterVoteRow.vote_id).where(
            schema.AdapterVoteRow.base_id == base_id, schema.AdapterVoteRow.version.in_(chain)
        )
        for chain in chains
    )
    brought = ours.where(
        schema.AdapterVoteRow.vote_id.in_(gone_votes(base_id)), schema.AdapterVoteRow.vote_id.not_in(theirs)
    )
    return connection.execute(brought.limit(1)).first() is not None


def gone_votes(base_id: int, since: datetime = EVER) -> CompoundSelect[int]:
    """Query of the ids of a lineage's votes that were taken back, or count no more, after a time.

    It begins with what is rare (stamps, struck annotators, retired pairs) and finds each by an index, so that it costs
    little however many votes there are.
    """
    by_owner = select(schema.VoteRow.id).where(
        schema.VoteRow.base_id == base_id,
        text(schema.IS_TAKEN_BACK),
        or_(schema.VoteRow.undone_at > since, schema.VoteRow.withdrawn_at > since),
    )
    struck = select(schema.AnnotatorRow.id).where(text(schema.IS_STRUCK), schema.AnnotatorRow.struck_at > since)
    retired = (
        select(schema.AssignmentRow.id)
        .join(schema.PairRow, schema.PairRow.id == schema.AssignmentRow.pair_id)
        .where(text(schema.IS_RETIRED), schema.PairRow.retired_at > since)
    )
    # Struck annotators and retired pairs of other lineages do no harm: no version of this one learned from their votes.
    return union(
        by_owner,
        select(schema.VoteRow.id).where(schema.VoteRow.annotator_id.in_(struck)),
        select(schema.VoteRow.id).where(schema.VoteRow.assignment_id.in_(retired), text(schema.IS_LIVE)),
    )


def _count(connection: Connection, base_id: int, versions: Sequence[int], since: datetime = EVER) -> int:
    count: int = connection.execute(count_query(base_id, versions, since)).scalar_one()
    return count


def count_query(base_id: int, versions: Sequence[int], since: datetime = EVER) -> Select[int]:
    """Query of the number of such votes behind these versions together."""
    return select(func.count(schema.AdapterVoteRow.vote_id.distinct())).where(
        schema.AdapterVoteRow.base_id == base_id,
        schema.AdapterVoteRow.version.in_(versions),
        schema.AdapterVoteRow.vote_id.in_(gone_votes(base_id, since)),
    )


def counts_query(base_id: int) -> Select[int, int, int]:
    """Query of (lineage, version, number of such votes that it was itself trained on), begun with the lineage's own.

    Without a condition on the lineage, which would have SQLite walk through all that its versions learned from.
    """
    per_version = (schema.AdapterVoteRow.base_id, schema.AdapterVoteRow.version)
    return (
        select(*per_version, func.count())
        .where(schema.AdapterVoteRow.vote_id.in_(gone_votes(base_id)))
        .group_by(*per_version)
    )


def _counts(connection: Connection, base_id: int) -> dict[int, int]:
    own = {row[1]: row[2] for row in connection.execute(counts_query(base_id)) if row[0] == base_id}
    if not own:
        return {}
    parents = _warm_parents(connection, base_id)
    counts = {}
    for version in parents:
        chain = _chain(parents, version)
        votes = own.get(version, 0) if len(chain) == 1 else _count(connection, base_id, chain)
        if votes:
            counts[version] = votes
    return counts


_VERSIONS = select(schema.AdapterRow.version, schema.AdapterRow.parent, schema.AdapterRow.config)


def _warm_parents(connection: Connection, base_id: int) -> dict[int, int | None]:
    """The version that each version's weights started from, by version; None where they started anew."""
    query = _VERSIONS.where(schema.AdapterRow.base_id == base_id, schema.AdapterRow.version > BASE_VERSION)
    return {row.version: _warm_parent(row) for row in connection.execute(query)}


def _warm_parent(row: Row[Any]) -> int | None:
    is_warm = row.config.get("settings", {}).get("warm_start", False)
    return row.parent if is_warm and row.parent != BASE_VERSION else None


def _chain(parents: Mapping[int, int | None], version: int) -> list[int]:
    """The version and those before it that its weights go back to."""
    chain, current = [version], parents.get(version)
    while current is not None:
        chain.append(current)
        current = parents.get(current)
    return chain


def _weights_from(connection: Connection, base_id: int, version: int) -> list[int]:
    """The chain of one version, without reading all others."""
    chain: list[int] = []
    current: int | None = version
    while current is not None and current != BASE_VERSION:
        chain.append(current)
        row = connection.execute(
            _VERSIONS.where(schema.AdapterRow.base_id == base_id, schema.AdapterRow.version == current)
        ).one()
        current = _warm_parent(row)
    return chain

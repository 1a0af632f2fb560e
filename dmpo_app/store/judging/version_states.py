"""The live version of a lineage, and the state of every other on its way to it: found as a part of a transaction."""

from sqlalchemy import Connection, bindparam, func, select

from dmpo_app.domain.judging import VerdictAction, VersionState
from dmpo_app.domain.lineage import BASE_VERSION
from dmpo_app.store import schema
from dmpo_app.store.judging.verdicts import DECIDERS

ROUND_AUTHOR = "round "
"""The beginning of the author of a live change where a round published the version."""

_AUTOMATIC_AUTHORS = frozenset((*DECIDERS.values(), "trainer"))
"""Other authors of live changes that are nobody's choice; the trainer goes back from withdrawn votes."""

# Built once, since they are run several times a second.
_LIVE = (
    select(schema.LiveChangeRow.version)
    .where(schema.LiveChangeRow.base_id == bindparam("base_id"))
    .order_by(schema.LiveChangeRow.id.desc())
    .limit(1)
)
_STANDINGS = (
    select(
        schema.AdapterRow.version,
        schema.AdapterRow.is_held,
        select(schema.LiveChangeRow.id)
        .where(
            schema.LiveChangeRow.base_id == schema.AdapterRow.base_id,
            schema.LiveChangeRow.version == schema.AdapterRow.version,
        )
        .exists()
        .label("was_live"),
        select(schema.VerdictRow.action)
        .where(
            schema.VerdictRow.base_id == schema.AdapterRow.base_id,
            schema.VerdictRow.version == schema.AdapterRow.version,
            schema.VerdictRow.action != VerdictAction.NONE,
        )
        .order_by(schema.VerdictRow.id.desc())
        .limit(1)
        .scalar_subquery()
        .label("last_action"),
    )
    .where(schema.AdapterRow.base_id == bindparam("base_id"))
    .order_by(schema.AdapterRow.version.desc())
)
_NEWER_STANDINGS = _STANDINGS.where(schema.AdapterRow.version > bindparam("live"))


def find_live_version(connection: Connection, base_id: int) -> int:
    """The version that is live; 0 until one was published."""
    live = connection.execute(_LIVE, {"base_id": base_id}).scalar_one_or_none()
    return BASE_VERSION if live is None else live


def find_states(connection: Connection, base_id: int) -> dict[int, VersionState]:
    """The state of every version, by version."""
    live, candidate = find_live_version(connection, base_id), find_candidate(connection, base_id)
    states = {BASE_VERSION: VersionState.PAST}
    for row in connection.execute(_STANDINGS, {"base_id": base_id}):
        if row.version == candidate:
            states[row.version] = VersionState.CANDIDATE
        elif row.last_action is VerdictAction.REJECTED and not row.was_live:
            states[row.version] = VersionState.REJECTED
        elif row.last_action is VerdictAction.ROLLED_BACK:
            states[row.version] = VersionState.ROLLED_BACK
        elif row.is_held and not row.was_live:
            states[row.version] = VersionState.SUPERSEDED
        else:
            states[row.version] = VersionState.PAST
    return {**states, live: VersionState.LIVE}


def find_candidate(connection: Connection, base_id: int) -> int | None:
    """The newest version that is held back, was never live and is not rejected, if it is newer than the live one."""
    live = find_live_version(connection, base_id)
    for row in connection.execute(_NEWER_STANDINGS, {"base_id": base_id, "live": live}):
        if row.is_held and not row.was_live and row.last_action is None:
            return int(row.version)
    return None


def find_version_before(connection: Connection, base_id: int, version: int) -> int | None:
    """The version that was live before this one first went live; None for the base model, and if it never was live.

    Not the one that was live last: after a rollback that is the one that was proven worse.
    """
    changes = schema.LiveChangeRow
    first = select(func.min(changes.id)).where(changes.base_id == base_id, changes.version == version)
    first_id = connection.execute(first).scalar_one()
    if first_id is None or version == BASE_VERSION:
        return None
    query = select(changes.version).where(changes.base_id == base_id, changes.id < first_id)
    before = connection.execute(query.order_by(changes.id.desc()).limit(1)).scalar_one_or_none()
    return BASE_VERSION if before is None else before


def is_chosen_by_hand(connection: Connection, base_id: int, version: int) -> bool:
    """True when this version was ever made live by a person: by neither a round, a verdict nor the trainer."""
    changes = schema.LiveChangeRow
    query = select(changes.by).where(changes.base_id == base_id, changes.version == version).distinct()
    authors = connection.execute(query).scalars()
    return any(by not in _AUTOMATIC_AUTHORS and not by.startswith(ROUND_AUTHOR) for by in authors)

"""SQLAlchemy column types that every database stores alike."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, TypeVar

from sqlalchemy import BigInteger, Connection, Dialect, String, func, insert, select
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

MICROSECONDS_PER_HOUR = 3_600_000_000


def from_microseconds(value: int) -> datetime:
    """The UTC time that many microseconds after 1970."""
    return _EPOCH + timedelta(microseconds=value)


class UTCTime(TypeDecorator[datetime]):
    """A timezone-aware time as whole microseconds since 1970, UTC. Refuses naive times."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no timezone; the store takes aware times only")
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else from_microseconds(int(value))


E_ = TypeVar("E_", bound=StrEnum)


class EnumText(TypeDecorator[E_], Generic[E_]):
    """A column type of a StrEnum, stored as its value."""

    impl = String(16)
    cache_ok = True

    def __init__(self, enum: type[E_]) -> None:
        super().__init__()
        self.enum = enum

    def process_bind_param(self, value: E_ | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else self.enum(value).value

    def process_result_value(self, value: Any | None, dialect: Dialect) -> E_ | None:  # noqa: ARG002
        return None if value is None else self.enum(value)


def insert_in_order(
    connection: Connection, ids: InstrumentedAttribute[int], rows: Sequence[Mapping[str, Any]]
) -> list[int]:
    """Insert rows into the table that `ids` numbers, in a write transaction; returns their ids in the same order."""
    table = ids.class_
    if connection.dialect.name != "sqlite":
        returning = insert(table).returning(ids, sort_by_parameter_order=True)
        return list(connection.execute(returning, rows).scalars())
    # SQLite promises no order for RETURNING, so SQLAlchemy would run a statement for each row, which takes three times
    # as long. But SQLite numbers rows upwards, and nobody else writes meanwhile.
    before = connection.execute(select(func.coalesce(func.max(ids), 0))).scalar_one()
    connection.execute(insert(table), rows)
    return list(connection.execute(select(ids).where(ids > before).order_by(ids)).scalars())

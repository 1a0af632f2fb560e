"""Many rows at once, and the id of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.orm import InstrumentedAttribute


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

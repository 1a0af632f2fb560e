"""The policy's implicit margins on pairs that nobody has judged."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sqlalchemy import Connection, delete, insert, select, text

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.errors import BadInput
from dmpo_app.store.db.database import Database
from dmpo_app.store.schema import IS_IN_POOL, PairMarginRow, PairRow


class PairMargins:
    def __init__(self, database: Database) -> None:
        self._database = database

    def missing(self, base: BaseModelRef, version: int, *, limit: int) -> list[int]:
        """Pairs of the pool without a live vote whose margin under a version is not known, newest first."""
        query = (
            select(PairRow.id)
            .outerjoin(PairMarginRow, PairMarginRow.pair_id == PairRow.id)
            .where(
                PairRow.base_id == base.id,
                PairRow.num_votes == 0,
                PairRow.gold.is_(None),
                text(IS_IN_POOL),
                PairRow.is_encoded,
                PairMarginRow.adapter_version.is_distinct_from(version),
            )
            .order_by(PairRow.id.desc())
            .limit(limit)
        )
        with self._database.reader() as connection:
            return list(connection.execute(query).scalars())

    def put(self, version: int, margins: Mapping[int, float]) -> None:
        """Record margins by pair id, in place of those of another version. Raises BadInput for one not finite."""
        if wrong := [pair_id for pair_id, margin in margins.items() if not math.isfinite(margin)]:
            raise BadInput(f"the margin of pair {wrong[0]} under version {version} is not finite")
        rows = [
            {"pair_id": pair_id, "adapter_version": version, "margin": margin} for pair_id, margin in margins.items()
        ]

        def work(connection: Connection) -> None:
            connection.execute(delete(PairMarginRow).where(PairMarginRow.pair_id.in_(margins)))
            connection.execute(insert(PairMarginRow), rows)

        if rows:
            self._database.write(work)

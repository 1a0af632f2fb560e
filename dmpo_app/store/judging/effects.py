"""Effects of versions on images, as they were measured: one row for a version and another one."""

import builtins
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from dmpo_app.domain.effects import VersionComparison, VersionEffects
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.store import schema
from dmpo_app.store.db.database import Database


class Effects:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def list(self, base: BaseModelRef, version: int | None = None) -> builtins.list[VersionComparison]:
        """List the stored comparisons of all versions, or of one, by version; the newest other version comes first."""
        row = schema.VersionEffectsRow
        query = (
            select(row.version, row.other_version, row.effects)
            .where(row.base_id == base.id)
            .order_by(row.version, row.other_version.desc())
        )
        if version is not None:
            query = query.where(row.version == version)
        with self._database.reader() as connection:
            return [
                VersionComparison(one.version, one.other_version, VersionEffects.from_json(one.effects))
                for one in connection.execute(query)
            ]

    def sentences(self, base: BaseModelRef) -> dict[int, builtins.list[str]]:
        """The sentences about the effects of each version that has some, in the order of `list`."""
        sentences: dict[int, builtins.list[str]] = {}
        for comparison in self.list(base):
            sentences.setdefault(comparison.version, []).append(comparison.effects.sentence)
        return sentences

    def put(self, base: BaseModelRef, comparison: VersionComparison) -> None:
        """Record the effects of a version against another one, in place of those recorded before."""
        row = schema.VersionEffectsRow
        key = {"base_id": base.id, "version": comparison.version, "other_version": comparison.other_version}

        def work(connection: Connection) -> None:
            connection.execute(delete(row).filter_by(**key))
            connection.execute(insert(row).values(**key, effects=comparison.effects.to_json(), created_at=self._now()))

        self._database.write(work)

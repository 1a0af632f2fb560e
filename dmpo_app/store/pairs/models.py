"""Base models: each owns a lineage of pairs, votes, rounds and versions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef
from dmpo_app.store.db.database import Database
from dmpo_app.store.schema import AdapterRow, BaseModelRow


class Models:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def register(self, source: str, family: str, fingerprint: str) -> BaseModelRef:
        """The lineage of a base model, begun if it is new. The fingerprint decides; the source may have moved."""

        def work(connection: Connection) -> BaseModelRef:
            found = connection.execute(
                select(BaseModelRow.id, BaseModelRow.source).where(BaseModelRow.fingerprint == fingerprint)
            ).one_or_none()
            if found is None:
                return BaseModelRef(self._begin(connection, source, family, fingerprint), source, family, fingerprint)
            if found.source != source:
                connection.execute(update(BaseModelRow).where(BaseModelRow.id == found.id).values(source=source))
            return BaseModelRef(found.id, source, family, fingerprint)

        return self._database.write(work)

    def _begin(self, connection: Connection, source: str, family: str, fingerprint: str) -> int:
        at = self._now()
        base_id = connection.execute(
            insert(BaseModelRow)
            .values(source=source, family=family, fingerprint=fingerprint, created_at=at)
            .returning(BaseModelRow.id)
        ).scalar_one()
        connection.execute(
            insert(AdapterRow).values(
                base_id=base_id, version=BASE_VERSION, num_votes=0, proven=False, metrics={}, config={}, created_at=at
            )
        )
        return base_id

"""What annotators agreed to. Append-only: an agreement is never taken back, votes are withdrawn instead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, insert, select

from dmpo_app.domain import Agreement
from dmpo_app.store.database import Database
from dmpo_app.store.schema import ConsentRow

_COLUMNS = (ConsentRow.text_sha256, ConsentRow.version, ConsentRow.created_at)


class Consents:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def agree(self, annotator_id: int, text_sha256: str, version: str) -> Agreement:
        """Record that an annotator agrees to a text; doing so again answers with the first agreement."""

        def work(connection: Connection) -> Agreement:
            found = _find(connection, annotator_id, text_sha256, version)
            if found is not None:
                return found
            agreement = Agreement(text_sha256, version, self._now())
            connection.execute(
                insert(ConsentRow).values(
                    annotator_id=annotator_id, text_sha256=text_sha256, version=version, created_at=agreement.at
                )
            )
            return agreement

        return self._database.write(work)

    def find(self, annotator_id: int, text_sha256: str, version: str) -> Agreement | None:
        """The annotator's agreement to this text in this version, if there is one."""
        with self._database.reader() as connection:
            return _find(connection, annotator_id, text_sha256, version)

    def of(self, annotator_id: int) -> list[Agreement]:
        """All that an annotator agreed to, oldest first."""
        query = select(*_COLUMNS).where(ConsentRow.annotator_id == annotator_id).order_by(ConsentRow.id)
        with self._database.reader() as connection:
            return [Agreement(*row) for row in connection.execute(query)]


def _find(connection: Connection, annotator_id: int, text_sha256: str, version: str) -> Agreement | None:
    row = connection.execute(
        select(*_COLUMNS).where(
            ConsentRow.annotator_id == annotator_id,
            ConsentRow.text_sha256 == text_sha256,
            ConsentRow.version == version,
        )
    ).one_or_none()
    return None if row is None else Agreement(*row)

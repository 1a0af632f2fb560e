"""Annotators: one for every session that was opened."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, insert, select

from dmpo_app.domain import Annotator
from dmpo_app.errors import NotFound
from dmpo_app.store.database import Database
from dmpo_app.store.schema import AnnotatorRow


class Annotators:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def ensure(self, handle: str) -> Annotator:
        """A new annotator of that name, always: knowing a name must not be enough to act as its bearer."""
        public_id = secrets.token_urlsafe(16)

        def work(connection: Connection) -> int:
            return connection.execute(
                insert(AnnotatorRow)
                .values(public_id=public_id, handle=handle, created_at=self._now())
                .returning(AnnotatorRow.id)
            ).scalar_one()

        return Annotator(self._database.write(work), public_id, handle)

    def get(self, public_id: str) -> Annotator:
        """Raises NotFound."""
        query = select(AnnotatorRow.id, AnnotatorRow.public_id, AnnotatorRow.handle).where(
            AnnotatorRow.public_id == public_id
        )
        with self._database.reader() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound("there is no such annotator in this home")
        return Annotator(*row)

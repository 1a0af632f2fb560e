"""Annotators: one for every session that was opened, or for every person who signed in elsewhere."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from dmpo_app.domain.vote import Annotator
from dmpo_app.errors import NotFound, NotInvited
from dmpo_app.store.db.database import Database
from dmpo_app.store.schema import AnnotatorRow

_ANNOTATORS = select(AnnotatorRow.id, AnnotatorRow.public_id, AnnotatorRow.handle, AnnotatorRow.identity.is_not(None))


class Annotators:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def ensure(self, handle: str) -> Annotator:
        """A new annotator of that name, always: knowing a name must not be enough to act as its bearer."""
        return self._database.write(lambda connection: insert_annotator(connection, handle, at=self._now()))

    def ensure_identified(
        self, identity: str, handle: str, *, until_now: Annotator | None = None, may_add: bool = True
    ) -> Annotator:
        """The annotator of an identity, which is a keyed hash, never a name itself.

        On its first session that is who they were `until_now`, if nobody is identified as that yet, else a new one.
        Raises NotInvited when it would have to be a new one that may not be added.
        """

        def work(connection: Connection) -> Annotator:
            row = connection.execute(_ANNOTATORS.where(AnnotatorRow.identity == identity)).one_or_none()
            if row is not None:
                return Annotator(*row)
            if until_now is not None:
                unclaimed = (AnnotatorRow.id == until_now.id, AnnotatorRow.identity.is_(None))
                claim = update(AnnotatorRow).where(*unclaimed).values(identity=identity).returning(AnnotatorRow.id)
                if connection.execute(claim).first() is not None:
                    return replace(until_now, signed_in=True)
            if not may_add:
                raise NotInvited("this studio is open to those who have a link of invitation; open yours, then sign in")
            return insert_annotator(connection, handle, at=self._now(), identity=identity)

        return self._database.write(work)

    def get(self, public_id: str) -> Annotator:
        """Raises NotFound."""
        with self._database.reader() as connection:
            row = connection.execute(_ANNOTATORS.where(AnnotatorRow.public_id == public_id)).one_or_none()
        if row is None:
            raise NotFound("there is no such annotator in this home")
        return Annotator(*row)


def insert_annotator(connection: Connection, handle: str, *, at: datetime, identity: str | None = None) -> Annotator:
    """A new annotator as a part of a transaction."""
    public_id = secrets.token_urlsafe(16)
    annotator_id = connection.execute(
        insert(AnnotatorRow)
        .values(public_id=public_id, handle=handle, created_at=at, identity=identity)
        .returning(AnnotatorRow.id)
    ).scalar_one()
    return Annotator(annotator_id, public_id, handle, identity is not None)

"""What annotators agreed to. Append-only: an agreement is never taken back, votes are withdrawn instead."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, func, insert, select

from dmpo_app.domain.campaign import AgreedText, Agreement
from dmpo_app.errors import NotFound
from dmpo_app.store.db.database import Database
from dmpo_app.store.schema import ConsentRow, ConsentTextRow

MIN_PREFIX = 4

_ITS_TEXT = and_(ConsentTextRow.sha256 == ConsentRow.text_sha256, ConsentTextRow.version == ConsentRow.version)
_AGREEMENTS: Select[*tuple[Any, ...]] = select(
    ConsentRow.text_sha256, ConsentRow.version, ConsentRow.created_at, ConsentTextRow.text
).outerjoin(ConsentTextRow, _ITS_TEXT)
_TEXTS: Select[*tuple[Any, ...]] = (
    select(
        ConsentRow.text_sha256,
        ConsentRow.version,
        func.min(ConsentRow.created_at, type_=ConsentRow.created_at.type),
        func.count(),
        ConsentTextRow.text,
    )
    .outerjoin(ConsentTextRow, _ITS_TEXT)
    .group_by(ConsentRow.text_sha256, ConsentRow.version, ConsentTextRow.text)
    .order_by(func.min(ConsentRow.id))
)


class Consents:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def agree(self, annotator_id: int, text: str, version: str) -> Agreement:
        """Record that an annotator agrees to a text, and keep the text; doing so again answers with the first
        agreement."""
        text_sha256 = hashlib.sha256(text.encode()).hexdigest()

        def work(connection: Connection) -> Agreement:
            now = self._now()
            _keep(connection, text_sha256, version, text, now)
            found = _find(connection, annotator_id, text_sha256, version)
            if found is not None:
                return found
            row = {"annotator_id": annotator_id, "text_sha256": text_sha256, "version": version, "created_at": now}
            connection.execute(insert(ConsentRow).values(row))
            return Agreement(text_sha256, version, now, text)

        return self._database.write(work)

    def find(self, annotator_id: int, text_sha256: str, version: str) -> Agreement | None:
        """The annotator's agreement to this text in this version, if there is one."""
        with self._database.reader() as connection:
            return _find(connection, annotator_id, text_sha256, version)

    def of(self, annotator_id: int) -> list[Agreement]:
        """All that an annotator agreed to, oldest first."""
        query = _AGREEMENTS.where(ConsentRow.annotator_id == annotator_id).order_by(ConsentRow.id)
        with self._database.reader() as connection:
            return [Agreement(*row) for row in connection.execute(query)]

    def texts(self) -> list[AgreedText]:
        """Every text that anybody agreed to, in every version, oldest first."""
        with self._database.reader() as connection:
            return [AgreedText(*row) for row in connection.execute(_TEXTS)]

    def texts_of(self, text_sha256: str) -> list[AgreedText]:
        """The versions of the texts whose hash begins so, with at least MIN_PREFIX digits. Raises NotFound."""
        wanted = text_sha256.strip().lower()
        found = [one for one in self.texts() if len(wanted) >= MIN_PREFIX and one.text_sha256.startswith(wanted)]
        if not found:
            raise NotFound(f"nobody agreed to a text with the hash {text_sha256!r}; `dmpo consent list` shows those")
        return found


def _keep(connection: Connection, text_sha256: str, version: str, text: str, at: datetime) -> None:
    kept = select(ConsentTextRow.sha256).where(ConsentTextRow.sha256 == text_sha256, ConsentTextRow.version == version)
    if connection.execute(kept).first() is None:
        row = {"sha256": text_sha256, "version": version, "text": text, "created_at": at}
        connection.execute(insert(ConsentTextRow).values(row))


def _find(connection: Connection, annotator_id: int, text_sha256: str, version: str) -> Agreement | None:
    row = connection.execute(
        _AGREEMENTS.where(
            ConsentRow.annotator_id == annotator_id,
            ConsentRow.text_sha256 == text_sha256,
            ConsentRow.version == version,
        )
    ).one_or_none()
    return None if row is None else Agreement(*row)

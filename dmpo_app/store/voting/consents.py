"""Consents of annotators. Append-only: an agreement is never revoked, votes are withdrawn instead."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, func, insert, select

from dmpo_app.domain.campaign import ConsentAgreement, ConsentTextSummary
from dmpo_app.errors import NotFoundError
from dmpo_app.io import sha256_hex
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

    def agree(self, annotator_id: int, text: str, version: str) -> ConsentAgreement:
        """Record that an annotator agrees to a text, and store the text.

        Doing so again returns the first agreement.
        """
        text_sha256 = sha256_hex(text.encode())

        def work(connection: Connection) -> ConsentAgreement:
            now = self._now()
            _store_text(connection, text_sha256, version, text, now)
            agreement = _find(connection, annotator_id, text_sha256, version)
            if agreement is not None:
                return agreement
            row = {"annotator_id": annotator_id, "text_sha256": text_sha256, "version": version, "created_at": now}
            connection.execute(insert(ConsentRow).values(row))
            return ConsentAgreement(text_sha256, version, now, text)

        return self._database.write(work)

    def find(self, annotator_id: int, text_sha256: str, version: str) -> ConsentAgreement | None:
        """The annotator's agreement to this text in this version, if there is one."""
        with self._database.reader() as connection:
            return _find(connection, annotator_id, text_sha256, version)

    def agreements(self, annotator_id: int) -> list[ConsentAgreement]:
        """List an annotator's agreements, oldest first."""
        query = _AGREEMENTS.where(ConsentRow.annotator_id == annotator_id).order_by(ConsentRow.id)
        with self._database.reader() as connection:
            return [ConsentAgreement(*row) for row in connection.execute(query)]

    def texts(self) -> list[ConsentTextSummary]:
        """List every text that anybody agreed to, in every version, oldest first."""
        with self._database.reader() as connection:
            return [ConsentTextSummary(*row) for row in connection.execute(_TEXTS)]

    def find_texts(self, text_sha256: str) -> list[ConsentTextSummary]:
        """Find the texts whose hash begins with these digits, at least MIN_PREFIX. Raises NotFoundError."""
        prefix = text_sha256.strip().lower()
        texts = [one for one in self.texts() if len(prefix) >= MIN_PREFIX and one.text_sha256.startswith(prefix)]
        if not texts:
            raise NotFoundError(
                f"nobody agreed to a text with the hash {text_sha256!r}; `dmpo consent list` shows those"
            )
        return texts


def _store_text(connection: Connection, text_sha256: str, version: str, text: str, at: datetime) -> None:
    stored_query = select(ConsentTextRow.sha256).where(
        ConsentTextRow.sha256 == text_sha256, ConsentTextRow.version == version
    )
    if connection.execute(stored_query).first() is None:
        row = {"sha256": text_sha256, "version": version, "text": text, "created_at": at}
        connection.execute(insert(ConsentTextRow).values(row))


def _find(connection: Connection, annotator_id: int, text_sha256: str, version: str) -> ConsentAgreement | None:
    row = connection.execute(
        _AGREEMENTS.where(
            ConsentRow.annotator_id == annotator_id,
            ConsentRow.text_sha256 == text_sha256,
            ConsentRow.version == version,
        )
    ).one_or_none()
    return None if row is None else ConsentAgreement(*row)

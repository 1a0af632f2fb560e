"""Annotators, the invitations by which they take part, and their consents.

Consents are append-only: an agreement is never revoked, votes are withdrawn instead.
"""

import builtins
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, and_, func, insert, or_, select, update

from dmpo_app.domain.campaign import ConsentAgreement, ConsentTextSummary, Invite
from dmpo_app.domain.vote import Annotator
from dmpo_app.errors import BadInputError, NotFoundError, NotInvitedError
from dmpo_app.io.files import sha256_hex
from dmpo_app.store import schema
from dmpo_app.store.audit import record_act
from dmpo_app.store.db.database import Database

_ANNOTATORS = select(
    schema.AnnotatorRow.id,
    schema.AnnotatorRow.public_id,
    schema.AnnotatorRow.handle,
    schema.AnnotatorRow.identity.is_not(None),
)


class Annotators:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def ensure(self, handle: str) -> Annotator:
        """Add a new annotator of that name, always: knowing a name must not be enough to act as its bearer."""
        return self._database.write(lambda connection: insert_annotator(connection, handle, at=self._now()))

    def ensure_identified(
        self, identity: str, handle: str, *, session_annotator: Annotator | None = None, may_create: bool = True
    ) -> Annotator:
        """Get or add the annotator of an identity, which is a keyed hash, never a name itself.

        On its first session that is `session_annotator`, if they have no identity yet, else a new one. Raises
        NotInvitedError when it would have to be a new one that may not be added.
        """

        def work(connection: Connection) -> Annotator:
            row = connection.execute(_ANNOTATORS.where(schema.AnnotatorRow.identity == identity)).one_or_none()
            if row is not None:
                return Annotator(*row)
            if session_annotator is not None:
                unclaimed = (schema.AnnotatorRow.id == session_annotator.id, schema.AnnotatorRow.identity.is_(None))
                claim = (
                    update(schema.AnnotatorRow)
                    .where(*unclaimed)
                    .values(identity=identity)
                    .returning(schema.AnnotatorRow.id)
                )
                if connection.execute(claim).first() is not None:
                    return replace(session_annotator, signed_in=True)
            if not may_create:
                raise NotInvitedError(
                    "this studio is open to those who have a link of invitation; open yours, then sign in"
                )
            return insert_annotator(connection, handle, at=self._now(), identity=identity)

        return self._database.write(work)

    def get(self, public_id: str) -> Annotator:
        """Get an annotator by public id. Raises NotFoundError."""
        with self._database.reader() as connection:
            row = connection.execute(_ANNOTATORS.where(schema.AnnotatorRow.public_id == public_id)).one_or_none()
        if row is None:
            raise NotFoundError("there is no such annotator in this home")
        return Annotator(*row)

    def vouched(self) -> frozenset[int]:
        """The ids of those whom somebody vouches for: who signed in, has an invitation, or came with an import.

        Struck annotators are not among them.
        """
        invited = schema.AnnotatorRow.id.in_(select(schema.InviteUseRow.annotator_id))
        query = select(schema.AnnotatorRow.id).where(
            or_(schema.AnnotatorRow.identity.is_not(None), invited), schema.AnnotatorRow.struck_at.is_(None)
        )
        with self._database.reader() as connection:
            return frozenset(connection.execute(query).scalars())


def insert_annotator(connection: Connection, handle: str, *, at: datetime, identity: str | None = None) -> Annotator:
    """Insert a new annotator as a part of a transaction."""
    public_id = secrets.token_urlsafe(16)
    annotator_id = connection.execute(
        insert(schema.AnnotatorRow)
        .values(public_id=public_id, handle=handle, created_at=at, identity=identity)
        .returning(schema.AnnotatorRow.id)
    ).scalar_one()
    return Annotator(annotator_id, public_id, handle, identity is not None)


MAX_USES = 1_000_000
MAX_LIFETIME = timedelta(days=3650)

_INVITES = select(
    schema.InviteRow.public_id,
    schema.InviteRow.name,
    schema.InviteRow.max_uses,
    schema.InviteRow.num_uses,
    schema.InviteRow.created_at,
    schema.InviteRow.expires_at,
)


class Invites:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def create(self, names: Sequence[str], *, max_uses: int, lifetime: timedelta, by: str) -> builtins.list[Invite]:
        """Create an invitation for each name, each an act of `by`. Raises BadInputError for values out of range."""
        if not 1 <= max_uses <= MAX_USES:
            raise BadInputError(f"an invitation has 1 to {MAX_USES} uses, not {max_uses}")
        if not timedelta(0) < lifetime <= MAX_LIFETIME:
            raise BadInputError(
                f"an invitation lasts up to {MAX_LIFETIME.days} days, not {lifetime / timedelta(days=1):g}"
            )

        def work(connection: Connection) -> builtins.list[Invite]:
            now = self._now()
            invites = [Invite(secrets.token_urlsafe(16), name, max_uses, 0, now, now + lifetime) for name in names]
            for invite in invites:
                connection.execute(
                    insert(schema.InviteRow).values(
                        public_id=invite.public_id,
                        name=invite.name,
                        max_uses=max_uses,
                        num_uses=0,
                        created_at=now,
                        expires_at=invite.expires_at,
                    )
                )
                subject = f"{invite.name or 'unnamed'}, {max_uses} uses until {invite.expires_at:%Y-%m-%d %H:%M} UTC"
                record_act(connection, by, "create_invite", subject, at=now)
            return invites

        return self._database.write(work)

    def list(self) -> builtins.list[Invite]:
        """List every invitation, oldest first."""
        with self._database.reader() as connection:
            return [Invite(*row) for row in connection.execute(_INVITES.order_by(schema.InviteRow.id))]

    def accept(self, public_id: str, handle: str) -> Annotator:
        """Use an invitation once, for a new annotator. Raises NotInvitedError when it is not valid.

        Counting and opening are one transaction: never more sessions than uses, whoever asks at the same time.
        """

        def work(connection: Connection) -> Annotator:
            now = self._now()
            claim = (
                update(schema.InviteRow)
                .where(
                    schema.InviteRow.public_id == public_id,
                    schema.InviteRow.num_uses < schema.InviteRow.max_uses,
                    schema.InviteRow.expires_at > now,
                )
                .values(num_uses=schema.InviteRow.num_uses + 1)
                .returning(schema.InviteRow.id)
            )
            invite_id = connection.execute(claim).scalar_one_or_none()
            if invite_id is None:
                raise NotInvitedError(_refusal_reason(connection, public_id, now))
            annotator = insert_annotator(connection, handle, at=now)
            connection.execute(insert(schema.InviteUseRow).values(annotator_id=annotator.id, invite_id=invite_id))
            return annotator

        return self._database.write(work)


def _refusal_reason(connection: Connection, public_id: str, now: datetime) -> str:
    row = connection.execute(_INVITES.where(schema.InviteRow.public_id == public_id)).one_or_none()
    if row is None:
        return "this invitation is not one of this studio; ask for a new link"
    if row.expires_at <= now:
        return "this invitation has expired; ask for a new link"
    return "this invitation has been used as often as it may be; ask for a new link"


MIN_PREFIX = 4

_ITS_TEXT = and_(
    schema.ConsentTextRow.sha256 == schema.ConsentRow.text_sha256,
    schema.ConsentTextRow.version == schema.ConsentRow.version,
)
_AGREEMENTS: Select[*tuple[Any, ...]] = select(
    schema.ConsentRow.text_sha256, schema.ConsentRow.version, schema.ConsentRow.created_at, schema.ConsentTextRow.text
).outerjoin(schema.ConsentTextRow, _ITS_TEXT)
_TEXTS: Select[*tuple[Any, ...]] = (
    select(
        schema.ConsentRow.text_sha256,
        schema.ConsentRow.version,
        func.min(schema.ConsentRow.created_at, type_=schema.ConsentRow.created_at.type),
        func.count(),
        schema.ConsentTextRow.text,
    )
    .outerjoin(schema.ConsentTextRow, _ITS_TEXT)
    .group_by(schema.ConsentRow.text_sha256, schema.ConsentRow.version, schema.ConsentTextRow.text)
    .order_by(func.min(schema.ConsentRow.id))
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
            agreement = _find_agreement(connection, annotator_id, text_sha256, version)
            if agreement is not None:
                return agreement
            row = {"annotator_id": annotator_id, "text_sha256": text_sha256, "version": version, "created_at": now}
            connection.execute(insert(schema.ConsentRow).values(row))
            return ConsentAgreement(text_sha256, version, now, text)

        return self._database.write(work)

    def find(self, annotator_id: int, text_sha256: str, version: str) -> ConsentAgreement | None:
        """The annotator's agreement to this text in this version, if there is one."""
        with self._database.reader() as connection:
            return _find_agreement(connection, annotator_id, text_sha256, version)

    def agreements(self, annotator_id: int) -> list[ConsentAgreement]:
        """List an annotator's agreements, oldest first."""
        query = _AGREEMENTS.where(schema.ConsentRow.annotator_id == annotator_id).order_by(schema.ConsentRow.id)
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
    stored_query = select(schema.ConsentTextRow.sha256).where(
        schema.ConsentTextRow.sha256 == text_sha256, schema.ConsentTextRow.version == version
    )
    if connection.execute(stored_query).first() is None:
        row = {"sha256": text_sha256, "version": version, "text": text, "created_at": at}
        connection.execute(insert(schema.ConsentTextRow).values(row))


def _find_agreement(
    connection: Connection, annotator_id: int, text_sha256: str, version: str
) -> ConsentAgreement | None:
    row = connection.execute(
        _AGREEMENTS.where(
            schema.ConsentRow.annotator_id == annotator_id,
            schema.ConsentRow.text_sha256 == text_sha256,
            schema.ConsentRow.version == version,
        )
    ).one_or_none()
    return None if row is None else ConsentAgreement(*row)

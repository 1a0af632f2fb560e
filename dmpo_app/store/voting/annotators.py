"""Annotators, and the invitations by which they take part."""

import builtins
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, select, update

from dmpo_app.domain.campaign import Invite
from dmpo_app.domain.vote import Annotator
from dmpo_app.errors import BadInputError, NotFoundError, NotInvitedError
from dmpo_app.store.audit import record_act
from dmpo_app.store.db.database import Database
from dmpo_app.store.schema import AnnotatorRow, InviteRow, InviteUseRow

_ANNOTATORS = select(AnnotatorRow.id, AnnotatorRow.public_id, AnnotatorRow.handle, AnnotatorRow.identity.is_not(None))


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
            row = connection.execute(_ANNOTATORS.where(AnnotatorRow.identity == identity)).one_or_none()
            if row is not None:
                return Annotator(*row)
            if session_annotator is not None:
                unclaimed = (AnnotatorRow.id == session_annotator.id, AnnotatorRow.identity.is_(None))
                claim = update(AnnotatorRow).where(*unclaimed).values(identity=identity).returning(AnnotatorRow.id)
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
            row = connection.execute(_ANNOTATORS.where(AnnotatorRow.public_id == public_id)).one_or_none()
        if row is None:
            raise NotFoundError("there is no such annotator in this home")
        return Annotator(*row)


def insert_annotator(connection: Connection, handle: str, *, at: datetime, identity: str | None = None) -> Annotator:
    """Insert a new annotator as a part of a transaction."""
    public_id = secrets.token_urlsafe(16)
    annotator_id = connection.execute(
        insert(AnnotatorRow)
        .values(public_id=public_id, handle=handle, created_at=at, identity=identity)
        .returning(AnnotatorRow.id)
    ).scalar_one()
    return Annotator(annotator_id, public_id, handle, identity is not None)


MAX_USES = 1_000_000
MAX_LIFETIME = timedelta(days=3650)

_INVITES = select(
    InviteRow.public_id,
    InviteRow.name,
    InviteRow.max_uses,
    InviteRow.num_uses,
    InviteRow.created_at,
    InviteRow.expires_at,
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
                    insert(InviteRow).values(
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
            return [Invite(*row) for row in connection.execute(_INVITES.order_by(InviteRow.id))]

    def accept(self, public_id: str, handle: str) -> Annotator:
        """Use an invitation once, for a new annotator. Raises NotInvitedError when it is not valid.

        Counting and opening are one transaction: never more sessions than uses, whoever asks at the same time.
        """

        def work(connection: Connection) -> Annotator:
            now = self._now()
            claim = (
                update(InviteRow)
                .where(
                    InviteRow.public_id == public_id,
                    InviteRow.num_uses < InviteRow.max_uses,
                    InviteRow.expires_at > now,
                )
                .values(num_uses=InviteRow.num_uses + 1)
                .returning(InviteRow.id)
            )
            invite_id = connection.execute(claim).scalar_one_or_none()
            if invite_id is None:
                raise NotInvitedError(_refusal_reason(connection, public_id, now))
            annotator = insert_annotator(connection, handle, at=now)
            connection.execute(insert(InviteUseRow).values(annotator_id=annotator.id, invite_id=invite_id))
            return annotator

        return self._database.write(work)


def _refusal_reason(connection: Connection, public_id: str, now: datetime) -> str:
    row = connection.execute(_INVITES.where(InviteRow.public_id == public_id)).one_or_none()
    if row is None:
        return "this invitation is not one of this studio; ask for a new link"
    if row.expires_at <= now:
        return "this invitation has expired; ask for a new link"
    return "this invitation has been used as often as it may be; ask for a new link"

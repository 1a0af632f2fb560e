"""Sealed tokens, which the server alone can make, read and change; and login attempts with an identity provider.

An attempt is started, returned once, and redeemed by whoever started it. No cookie is needed, since pages in frames of
other sites often get none. Who starts gets a *ticket*, which never leaves their page. The *state* travels by way of the
provider. When it comes back with a person, a short *code* is made, which is shown in the window that came back; only
ticket and code together are the person. So neither whoever lures somebody into an attempt they started themselves (they
lack the code), nor whoever sees the code (they lack the ticket), gets anything.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography.fernet import Fernet, InvalidToken

from dmpo_app import errors
from dmpo_app.store import utc_now
from dmpo_app.store.home import SECRET_KEY_NAME, read_secret_key

_SESSION = b"s:"
_IMAGE = b"i:"
_INVITE = b"v:"
_NOTE = b"n:"
_MAX_LENGTH = 512
"""The longest token that is decoded; the usual one has about 140 characters."""


MIN_TOKEN_LENGTH = 16
_MIN_TOKEN_CHARACTERS = 6


def require_strong_token(token: str, variable: str = "DMPO_ADMIN_TOKEN") -> str:
    """Return a token that cannot be guessed. Raises SetupError, naming the variable, for a short or monotonous one.

    The right token passes however many wrong ones came before, so its length is what keeps others out.
    """
    if len(token) >= MIN_TOKEN_LENGTH and len(set(token)) >= _MIN_TOKEN_CHARACTERS:
        return token
    raise errors.SetupError(
        f"{variable} could be guessed: it has {len(token)} characters, {len(set(token))} of them different; "
        f"expected at least {MIN_TOKEN_LENGTH}, {_MIN_TOKEN_CHARACTERS} of them different. `openssl rand -hex 16` "
        "makes a good one"
    )


class Sealer:
    """Seals session, image and invitation tokens and notes; none opens as another kind. Hashes identities."""

    def __init__(self, key: bytes) -> None:
        self._fernet = Fernet(key)
        # A key of its own, so that nothing computed with it says anything about the one that seals.
        self._identity_key = hmac.digest(key, b"dmpo studio: identities of annotators", hashlib.sha256)

    def seal_session(self, annotator_public_id: str) -> str:
        """Seal a session token, by which an annotator is recognised."""
        return self._seal(_SESSION + annotator_public_id.encode())

    def open_session(self, token: str) -> str:
        """The public id of a session token's annotator. Raises ForbiddenError for anything but such a token."""
        content = self._open(token, _SESSION)
        if content is None:
            raise errors.ForbiddenError("this session token is not one of this studio; open a new session")
        return content.decode()

    def seal_image(self, image_id: int, expires_at: datetime) -> str:
        """Seal an image token, which shows one image until a time. It tells nothing about the image."""
        # All of one length: the longer number of a newer image would show in the length of its address.
        return self._seal(_IMAGE + b"%019d:%d" % (image_id, int(expires_at.timestamp())))

    def open_image(self, token: str, *, now: datetime) -> int:
        """The id of an image token's image. Raises NotFoundError for any other token, ExpiredError after its time."""
        content = self._open(token, _IMAGE)
        if content is None:
            raise errors.NotFoundError("there is no such image")
        image_id, expires_at = map(int, content.split(b":"))
        if now >= datetime.fromtimestamp(expires_at, UTC):
            raise errors.ExpiredError("the address of this image has expired; ask for the pair again")
        return image_id

    def seal_invite(self, public_id: str) -> str:
        """Seal an invitation token, which opens sessions as often as the invitation says."""
        return self._seal(_INVITE + public_id.encode())

    def open_invite(self, token: str) -> str:
        """The public id of an invitation token's invitation. Raises NotInvitedError for anything but such a token."""
        content = self._open(token, _INVITE)
        if content is None:
            raise errors.NotInvitedError("this invitation is not one of this studio; ask for a new link")
        return content.decode()

    def seal_note(self, purpose: str, content: str, expires_at: datetime) -> str:
        """Seal a note of the studio to itself that travels by way of others until a time. No colon in a purpose."""
        return self._seal(_NOTE + f"{purpose}:{int(expires_at.timestamp())}:{content}".encode())

    def open_note(self, purpose: str, token: str, *, now: datetime) -> str | None:
        """The content of a note for that purpose; None for anything but such a note, and after its time."""
        content = self._open(token, _NOTE)
        if content is None:
            return None
        note_purpose, expires_at, text = content.decode().split(":", 2)
        return text if note_purpose == purpose and now.timestamp() < int(expires_at) else None

    def identity(self, provider: str, subject: str) -> str:
        """The identity of a person at a provider, as HMAC-SHA256 under a key of this home: 64 hex digits.

        It is the same each time; without the key nobody can tell whose it is, not even by trying names.
        """
        # The length keeps apart what would read alike when joined.
        message = f"{len(provider)}:{provider}{subject}".encode()
        return hmac.new(self._identity_key, message, hashlib.sha256).hexdigest()

    def network_hash(self, network: str) -> str:
        """A keyed hash of a network, 16 hex digits: the same each time, and nobody can tell which network it is."""
        return hmac.new(self._identity_key, f"network:{network}".encode(), hashlib.sha256).hexdigest()[:16]

    def _seal(self, content: bytes) -> str:
        return self._fernet.encrypt(content).decode().rstrip("=")

    def _open(self, token: str, kind: bytes) -> bytes | None:
        """The content of a token of this kind, or None."""
        if len(token) > _MAX_LENGTH or not token.isascii():
            return None
        sealed = token.encode() + b"=" * (-len(token) % 4)
        try:
            # Lenient decoding would take many spellings of one token; only the one that was handed out is good.
            if base64.urlsafe_b64encode(base64.urlsafe_b64decode(sealed)) != sealed:
                return None
            content = self._fernet.decrypt(sealed)
        except (binascii.Error, InvalidToken):
            return None
        return content.removeprefix(kind) if content.startswith(kind) else None


def load_or_create_key(home: Path) -> bytes:
    """Load the home's key, made on first use and readable by its owner only. Two processes at once get the same.

    Raises SetupError when the file holds no key, StorageFullError.
    """
    try:
        key = read_secret_key(home)
        Fernet(key)
    except (ValueError, IsADirectoryError) as error:
        path = home / SECRET_KEY_NAME
        raise errors.SetupError(
            f"{path} does not hold a key; delete it and a new one is made (open sessions will have to start again)"
        ) from error
    return key


LIFETIME = timedelta(minutes=10)
ADMINISTRATOR_LIFETIME = timedelta(hours=12)
MAX_TRIES = 5
MAX_REMEMBERED = 10_000
CODE_LENGTH = 8
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""The letters of a code, without those that are taken for one another: 40 bits a code, MAX_TRIES attempts."""

_STATE, _TICKET, _ADMINISTRATOR = "login state", "login ticket", "administrator"


@dataclass(frozen=True, slots=True)
class Person:
    """A person as an identity provider names them. `name`: for themselves; `admin_name`: for the list of admins."""

    issuer: str
    subject: str
    name: str
    admin_name: str | None


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """One login attempt. `nonce` comes back in the identity token, `verifier` (PKCE) in the request for it."""

    id: str
    nonce: str
    verifier: str = field(repr=False)


class StartedLogin(NamedTuple):
    """A started login attempt, with the state for the provider and the ticket for whoever started it."""

    attempt: LoginAttempt
    state: str
    ticket: str


@dataclass(slots=True)
class _CompletedLogin:
    person: Person
    code: str
    expires_at: datetime
    tries: int = 0


class Logins:
    """The login attempts of one server process. Starting one stores nothing. Safe for any number of threads."""

    def __init__(self, sealer: Sealer, *, now: Callable[[], datetime] = utc_now) -> None:
        self._sealer = sealer
        self._now = now
        # What has come back is remembered here, so states of an earlier process must not be good any more.
        self._process = secrets.token_urlsafe(8)
        self._lock = threading.Lock()
        self._used_states: OrderedDict[str, datetime] = OrderedDict()
        self._completed: OrderedDict[str, _CompletedLogin] = OrderedDict()

    def begin(self) -> StartedLogin:
        """Start a login attempt."""
        attempt = LoginAttempt(secrets.token_urlsafe(16), secrets.token_urlsafe(24), secrets.token_urlsafe(48))
        expires_at = self._now() + LIFETIME
        note = " ".join((self._process, attempt.id, attempt.nonce, attempt.verifier))
        state = self._sealer.seal_note(_STATE, note, expires_at)
        return StartedLogin(attempt, state, self._sealer.seal_note(_TICKET, attempt.id, expires_at))

    def accept_state(self, state: str) -> LoginAttempt:
        """Accept a returned state, once; returns its login attempt.

        Raises LoginRefusedError for any other, BusyError when more come back than can be remembered.
        """
        note = self._sealer.open_note(_STATE, state, now=self._now())
        process, *parts = (note or "").split(" ")
        if note is None or process != self._process:
            raise errors.LoginRefusedError("this sign-in was not begun here, or too long ago")
        attempt = LoginAttempt(*parts)
        with self._lock:
            self._drop_expired()
            if attempt.id in self._used_states:
                raise errors.LoginRefusedError("this sign-in has come back before")
            if len(self._used_states) >= MAX_REMEMBERED:
                raise errors.BusyError("too many people are signing in; try again in a few minutes")
            self._used_states[attempt.id] = self._now() + LIFETIME
        return attempt

    def complete(self, attempt: LoginAttempt, person: Person) -> str:
        """Complete a login attempt with a person; returns the code that whoever started it has to enter."""
        code = "".join(secrets.choice(_ALPHABET) for _ in range(CODE_LENGTH))
        with self._lock:
            self._completed[attempt.id] = _CompletedLogin(person, code, self._now() + LIFETIME)
        return code

    def redeem(self, ticket: str, code: str) -> Person:
        """Redeem ticket and code for the person, once. Raises LoginRefusedError, also after MAX_TRIES."""
        attempt_id = self._sealer.open_note(_TICKET, ticket, now=self._now())
        entered_code = "".join(code.split()).upper().encode("utf-8", "replace")
        with self._lock:
            self._drop_expired()
            login = self._completed.get(attempt_id or "")
            if attempt_id is None or login is None:
                raise errors.LoginRefusedError(
                    "this sign-in has not come back yet, was used already, or began too long ago"
                )
            login.tries += 1
            is_right_code = hmac.compare_digest(entered_code, login.code.encode())
            if is_right_code or login.tries >= MAX_TRIES:
                del self._completed[attempt_id]
            if not is_right_code:
                raise errors.LoginRefusedError("this is not the code of the sign-in that was begun here")
            return login.person

    def seal_administrator(self, name: str) -> str:
        """Seal a token that makes somebody who signed in an administrator for some hours."""
        return self._sealer.seal_note(_ADMINISTRATOR, name, self._now() + ADMINISTRATOR_LIFETIME)

    def open_administrator(self, token: str) -> str | None:
        """The name in an administrator's token; None for any other token, and after its time."""
        return self._sealer.open_note(_ADMINISTRATOR, token, now=self._now())

    def _drop_expired(self) -> None:
        now = self._now()
        while self._used_states and next(iter(self._used_states.values())) <= now:
            self._used_states.popitem(last=False)
        while self._completed and next(iter(self._completed.values())).expires_at <= now:
            self._completed.popitem(last=False)

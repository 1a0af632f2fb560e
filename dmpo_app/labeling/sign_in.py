"""Login attempts with an identity provider: started, returned once, and redeemed by whoever started them.

No cookie is needed, since pages in frames of other sites often get none. Who starts gets a *ticket*, which never leaves
their page. The *state* travels by way of the provider. When it comes back with a person, a short *code* is made, which
is shown in the window that came back; only ticket and code together are the person. So neither whoever lures somebody
into an attempt they started themselves (they lack the code), nor whoever sees the code (they lack the ticket), gets
anything.
"""

import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from dmpo_app.errors import BusyError, LoginRefusedError
from dmpo_app.labeling.tokens import Sealer
from dmpo_app.store import utc_now

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
            raise LoginRefusedError("this sign-in was not begun here, or too long ago")
        attempt = LoginAttempt(*parts)
        with self._lock:
            self._drop_expired()
            if attempt.id in self._used_states:
                raise LoginRefusedError("this sign-in has come back before")
            if len(self._used_states) >= MAX_REMEMBERED:
                raise BusyError("too many people are signing in; try again in a few minutes")
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
                raise LoginRefusedError("this sign-in has not come back yet, was used already, or began too long ago")
            login.tries += 1
            is_right_code = hmac.compare_digest(entered_code, login.code.encode())
            if is_right_code or login.tries >= MAX_TRIES:
                del self._completed[attempt_id]
            if not is_right_code:
                raise LoginRefusedError("this is not the code of the sign-in that was begun here")
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

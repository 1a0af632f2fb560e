"""Signing in, from the studio's side: ways that are begun, come back once, and are ended by who began.

No cookie is needed, since pages in frames of other sites often get none. Who begins gets a *ticket*, which never leaves
their page. The *state* travels by way of the provider. When it comes back with a person, a short *code* is made, which
is shown in the window that came back; only ticket and code together are the person. So neither whoever lures somebody
into a way they began themselves (they lack the code), nor whoever sees the code (they lack the ticket), gets anything.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from dmpo_app.errors import Busy, LoginRefused
from dmpo_app.labeling.tokens import Sealer
from dmpo_app.store import utc_now

LIFETIME = timedelta(minutes=10)
ADMINISTRATOR_LIFETIME = timedelta(hours=12)
MAX_TRIES = 5
MAX_REMEMBERED = 10_000
CODE_LENGTH = 8
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Without those that are taken for one another: 40 bits a code, of which MAX_TRIES can be tried."""

_STATE, _TICKET, _ADMINISTRATOR = "login state", "login ticket", "administrator"


@dataclass(frozen=True, slots=True)
class Person:
    """Who a provider says somebody is. `name` is theirs to see; `admin_name` is what administrators are listed by."""

    issuer: str
    subject: str
    name: str
    admin_name: str | None


@dataclass(frozen=True, slots=True)
class Way:
    """One way of signing in. `nonce` comes back in the identity token, `verifier` (PKCE) in the request for it."""

    id: str
    nonce: str
    verifier: str = field(repr=False)


class Begun(NamedTuple):
    """A way that was begun, with what goes to the provider and what stays with who began it."""

    way: Way
    state: str
    ticket: str


@dataclass(slots=True)
class _Ended:
    person: Person
    code: str
    expires_at: datetime
    tries: int = 0


class Logins:
    """The ways of one server process. Beginning remembers nothing. Safe for any number of threads."""

    def __init__(self, sealer: Sealer, *, now: Callable[[], datetime] = utc_now) -> None:
        self._sealer = sealer
        self._now = now
        # What has come back is remembered here, so states of an earlier process must not be good any more.
        self._process = secrets.token_urlsafe(8)
        self._lock = threading.Lock()
        self._returned: OrderedDict[str, datetime] = OrderedDict()
        self._ended: OrderedDict[str, _Ended] = OrderedDict()

    def begin(self) -> Begun:
        """A new way."""
        way = Way(secrets.token_urlsafe(16), secrets.token_urlsafe(24), secrets.token_urlsafe(48))
        expires_at = self._now() + LIFETIME
        noted = " ".join((self._process, way.id, way.nonce, way.verifier))
        state = self._sealer.seal_note(_STATE, noted, expires_at)
        return Begun(way, state, self._sealer.seal_note(_TICKET, way.id, expires_at))

    def returned(self, state: str) -> Way:
        """The way that a state belongs to; a state comes back once.

        Raises LoginRefused for any other, Busy when more come back than can be remembered.
        """
        noted = self._sealer.open_note(_STATE, state, now=self._now())
        process, *parts = (noted or "").split(" ")
        if noted is None or process != self._process:
            raise LoginRefused("this sign-in was not begun here, or too long ago")
        way = Way(*parts)
        with self._lock:
            self._forget_late_ones()
            if way.id in self._returned:
                raise LoginRefused("this sign-in has come back before")
            if len(self._returned) >= MAX_REMEMBERED:
                raise Busy("too many people are signing in; try again in a few minutes")
            self._returned[way.id] = self._now() + LIFETIME
        return way

    def end(self, way: Way, person: Person) -> str:
        """Keep who came back; returns the code by which who began learns of it."""
        code = "".join(secrets.choice(_ALPHABET) for _ in range(CODE_LENGTH))
        with self._lock:
            self._ended[way.id] = _Ended(person, code, self._now() + LIFETIME)
        return code

    def redeem(self, ticket: str, code: str) -> Person:
        """Who signed in, for the ticket of the way and its code, once. Raises LoginRefused, also after MAX_TRIES."""
        way_id = self._sealer.open_note(_TICKET, ticket, now=self._now())
        given = "".join(code.split()).upper().encode("utf-8", "replace")
        with self._lock:
            self._forget_late_ones()
            ended = self._ended.get(way_id or "")
            if way_id is None or ended is None:
                raise LoginRefused("this sign-in has not come back yet, was used already, or began too long ago")
            ended.tries += 1
            right = hmac.compare_digest(given, ended.code.encode())
            if right or ended.tries >= MAX_TRIES:
                del self._ended[way_id]
            if not right:
                raise LoginRefused("this is not the code of the sign-in that was begun here")
            return ended.person

    def seal_administrator(self, name: str) -> str:
        """A token by which somebody who signed in administers for some hours."""
        return self._sealer.seal_note(_ADMINISTRATOR, name, self._now() + ADMINISTRATOR_LIFETIME)

    def administrator(self, token: str) -> str | None:
        """The name that such a token was sealed for; None for any other, and after its time."""
        return self._sealer.open_note(_ADMINISTRATOR, token, now=self._now())

    def _forget_late_ones(self) -> None:
        now = self._now()
        while self._returned and next(iter(self._returned.values())) <= now:
            self._returned.popitem(last=False)
        while self._ended and next(iter(self._ended.values())).expires_at <= now:
            self._ended.popitem(last=False)

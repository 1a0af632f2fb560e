"""Who is asking: the annotator behind a Bearer token, an administrator, or nobody in particular."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from dmpo_app.domain.vote import Annotator
from dmpo_app.errors import NotFound, NotYours
from dmpo_app.labeling.service import LabelingService
from dmpo_app.web.concurrency import Lanes
from dmpo_app.web.error_responses import ApiProblem
from dmpo_app.web.services import Services

_annotator_scheme = HTTPBearer(auto_error=False, scheme_name="annotator", description="Token of POST /session.")
_admin_scheme = HTTPBearer(
    auto_error=False,
    scheme_name="administrator",
    description="DMPO_ADMIN_TOKEN, or `administrator` of POST /login/session.",
)
MAX_TOKEN = 2000
ADMINISTRATOR = "administrator"
"""Who acts, in the log of acts, when the administrator's token was shown; the name of who signed in is added."""


async def _annotator_token(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_annotator_scheme)],
) -> str:
    token = _text(credentials)
    if not token:
        raise ApiProblem(401, "no_token", "Send the token of POST /api/v1/session as a Bearer token.")
    return token


async def _maybe_token(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_annotator_scheme)],
) -> str | None:
    return _text(credentials)


async def _admin_token(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_admin_scheme)]) -> str:
    token = _text(credentials)
    if not token:
        raise ApiProblem(401, "no_token", "Send the administrator's token as a Bearer token.")
    return token


SessionToken = Annotated[str, Depends(_annotator_token)]
MaybeSessionToken = Annotated[str | None, Depends(_maybe_token)]
AdminToken = Annotated[str, Depends(_admin_token)]


def _text(credentials: HTTPAuthorizationCredentials | None) -> str | None:
    if credentials is None or not credentials.credentials or len(credentials.credentials) > MAX_TOKEN:
        return None
    return credentials.credentials


@contextmanager
def _told_as_unauthorized() -> Iterator[None]:
    try:
        yield
    except (NotYours, NotFound) as error:
        raise ApiProblem(401, "bad_token", "This token is not valid here; open a new session.") from error


def annotator_of(labeling: LabelingService, token: str) -> Annotator:
    """The annotator a token was sealed for. A forged token, or one of another home, is answered 401."""
    with _told_as_unauthorized():
        return labeling.annotator_of(token)


async def admitted(labeling: LabelingService, lanes: Lanes, token: str) -> Annotator:
    """`annotator_of` for one who may judge pairs. Waits for the database with a token's first request only.

    Raises ConsentNeeded.
    """

    def admit() -> Annotator:
        with _told_as_unauthorized():
            return labeling.admit(token)

    known = labeling.admitted(token)
    return await lanes.writes.run(admit) if known is None else known


def administrator_of(services: Services, token: str) -> str:
    """Who administers, as the log of acts names them: whoever has the administrator's token, or signed in and is listed
    in the settings. Anybody else is answered 403."""
    expected = services.admin_token
    if expected and hmac.compare_digest(token.encode("utf-8", "replace"), expected.encode("utf-8", "replace")):
        return ADMINISTRATOR
    name = services.labeling.logins.administrator(token)
    if name is not None and name in services.settings.identity.admins:
        return f"{ADMINISTRATOR} {name}"
    raise ApiProblem(403, "not_admin", "This is for administrators; the token does not match.")


def caller_of(labeling: LabelingService, token: str | None, request: Request) -> str:
    """Whom a limit counts against: the annotator, else everybody without a session at this address together.

    The address is the peer's. Forwarded headers are not believed, since anyone can write them.
    """
    if token is not None:
        return f"annotator:{annotator_of(labeling, token).id}"
    return f"address:{request.client.host if request.client else 'unknown'}"

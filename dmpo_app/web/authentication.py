"""Authentication of requests: the annotator behind a Bearer token, an administrator, or an anonymous caller."""

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from dmpo_app.domain.vote import Annotator
from dmpo_app.errors import ForbiddenError, NotFoundError
from dmpo_app.labeling.service import LabelingService
from dmpo_app.web.error_responses import ApiError
from dmpo_app.web.services import RequestLimiters, Services

_annotator_scheme = HTTPBearer(auto_error=False, scheme_name="annotator", description="Token of POST /session.")
OPTIONAL_SCHEME = "annotator, optional"
"""Name of the scheme of routes that do without a token; the API's description says so and does not name it."""
_optional_annotator_scheme = HTTPBearer(auto_error=False, scheme_name=OPTIONAL_SCHEME)
_admin_scheme = HTTPBearer(
    auto_error=False,
    scheme_name="administrator",
    description="DMPO_ADMIN_TOKEN, or `administrator` of POST /login/session.",
)
_metrics_scheme = HTTPBearer(auto_error=False, scheme_name="metrics", description="DMPO_METRICS_TOKEN.")
MAX_TOKEN = 2000
ADMINISTRATOR = "administrator"
"""The actor in the audit log when the administrator's token was sent; the name of who signed in is added."""


async def _annotator_token(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_annotator_scheme)],
) -> str:
    token = _text(credentials)
    if not token:
        raise ApiError(401, "no_token", "Send the token of POST /api/v1/session as a Bearer token.")
    return token


async def _maybe_token(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_optional_annotator_scheme)],
) -> str | None:
    return _text(credentials)


async def _admin_token(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_admin_scheme)]) -> str:
    token = _text(credentials)
    if not token:
        raise ApiError(401, "no_token", "Send the administrator's token as a Bearer token.")
    return token


async def _metrics_token(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_metrics_scheme)],
) -> str | None:
    return _text(credentials)


SessionToken = Annotated[str, Depends(_annotator_token)]
MaybeSessionToken = Annotated[str | None, Depends(_maybe_token)]
AdminToken = Annotated[str, Depends(_admin_token)]
MaybeMetricsToken = Annotated[str | None, Depends(_metrics_token)]


def _text(credentials: HTTPAuthorizationCredentials | None) -> str | None:
    if credentials is None or not credentials.credentials or len(credentials.credentials) > MAX_TOKEN:
        return None
    return credentials.credentials


@contextmanager
def _unauthorized_on_error() -> Iterator[None]:
    try:
        yield
    except (ForbiddenError, NotFoundError) as error:
        raise ApiError(401, "bad_token", "This token is not valid here; open a new session.") from error


def require_annotator(labeling: LabelingService, token: str) -> Annotator:
    """Return the annotator a token was sealed for. A forged token, or one of another home, is answered 401."""
    with _unauthorized_on_error():
        return labeling.authenticate(token)


async def require_admitted_annotator(labeling: LabelingService, limiters: RequestLimiters, token: str) -> Annotator:
    """Return the annotator, once admitted to vote. Waits for the database with a token's first request only.

    Raises ConsentRequiredError.
    """

    def admit() -> Annotator:
        with _unauthorized_on_error():
            return labeling.authorize(token)

    cached_annotator = labeling.authorized(token)
    return await limiters.writes.run(admit) if cached_annotator is None else cached_annotator


def require_administrator(services: Services, token: str) -> str:
    """Return the administrator's name for the audit log; anybody else is answered 403.

    Administrators have the administrator's token, or signed in and are listed in the settings.
    """
    admin_token = services.admin_token
    if admin_token and _is_same(token, admin_token):
        return ADMINISTRATOR
    name = services.labeling.logins.open_administrator(token)
    if name is not None and name in services.settings.identity.admins:
        return f"{ADMINISTRATOR} {name}"
    raise ApiError(403, "not_admin", "This is for administrators; the token does not match.")


def require_metrics_token(services: Services, token: str | None) -> None:
    """Require DMPO_METRICS_TOKEN where it is set; without it, metrics are not there in public mode, and open elsewhere.

    Raises ApiError.
    """
    expected = services.settings.metrics_token
    if expected is None:
        if services.settings.public:
            raise ApiError(404, "not_found", "Not Found")
        return
    if token is None or not _is_same(token, expected.get_secret_value()):
        raise ApiError(401, "bad_token", "Send DMPO_METRICS_TOKEN as a Bearer token.")


def _is_same(token: str, expected: str) -> bool:
    """Compare in a time that says nothing about the expected token."""
    return hmac.compare_digest(token.encode("utf-8", "replace"), expected.encode("utf-8", "replace"))


def rate_limit_key(labeling: LabelingService, token: str | None, request: Request) -> str:
    """Rate limit key of a request: the annotator, else everybody without a session at this address together.

    The address is the peer's. Forwarded headers are not believed, since anyone can write them.
    """
    if token is not None:
        return f"annotator:{require_annotator(labeling, token).id}"
    return f"address:{request.client.host if request.client else 'unknown'}"

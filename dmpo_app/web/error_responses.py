"""How this API answers when something is wrong: one shape, `{"detail", "code"}`, and never more than a caller may see.

`StudioRoute` is the route class of every route here, so the rules hold wherever the router is included: errors of the
studio become status codes, malformed bodies 422 without echoing them, anything unexpected is logged and answered 500
with a general message. Bodies are bounded while they are read.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from dmpo_app import errors
from dmpo_app.web.api_models import Problem

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
MAX_ERRORS = 10

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
API_POLICY = "default-src 'none'; frame-ancestors 'none'"

_STATUS: list[tuple[type[errors.StudioError], int, str]] = [
    (errors.NotFound, 404, "not_found"),
    (errors.NotYours, 403, "not_yours"),
    (errors.NotInvited, 403, "invite_needed"),
    (errors.LoginNeeded, 403, "login_needed"),
    (errors.LoginRefused, 403, "login_refused"),
    (errors.ConsentNeeded, 403, "consent_needed"),
    (errors.Conflict, 409, "conflict"),
    (errors.Expired, 410, "expired"),
    (errors.TooMany, 429, "too_many"),
    (errors.BadInput, 422, "malformed"),
    (errors.Busy, 503, "busy"),
    (errors.NotReady, 503, "not_ready"),
    (errors.StorageFull, 507, "storage_full"),
    (errors.BackupUnreachable, 503, "backup_unreachable"),
]
_RETRY_SECONDS = {"busy": 2, "not_ready": 5, "storage_full": 30, "backup_unreachable": 10, "too_many": 3600}


_PATH = re.compile(r"""(?<![\w/.…-])(?!/api/)(?:[A-Za-z]:[\\/]|/)(?:[^\s'"/\\:;,()]+[\\/])+([^\s'"/\\:;,()]*)""")


def without_paths(text: str) -> str:
    """A message fit for a browser: of a file or folder of this machine only the last name is left."""
    return _PATH.sub(r"…/\1", text)


class ApiProblem(Exception):
    """An answer that is not the wished one; raised by handlers and dependencies."""

    def __init__(self, status: int, code: str, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after = retry_after


def problem(status: int, code: str, detail: str, *, retry_after: int | None = None, **more: Any) -> Response:
    """The one shape of every error. ASCII JSON, so that no text in it can fail to be encoded."""
    headers = {"Cache-Control": "no-store"}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = json.dumps({"detail": detail, "code": code, **more}, ensure_ascii=True)
    return Response(body, status_code=status, media_type="application/json", headers=headers)


def of_studio_error(error: errors.StudioError) -> Response:
    """What a person may be told, by the kind of error; the rest stays in the log."""
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            return problem(status, code, without_paths(str(error)), retry_after=_RETRY_SECONDS.get(code))
    if isinstance(error, errors.AdapterProblem):
        log.warning("an adapter was refused: %s", error)
        return problem(409, "adapter_damaged", "The files of this version are damaged, so it cannot be used.")
    log.error("a request failed", exc_info=error)
    return problem(500, "internal", errors.UNEXPECTED)


def of_validation_error(error: RequestValidationError) -> Response:
    """422 that names fields and reasons but never repeats what was sent."""
    lines = [_line(item) for item in error.errors()[:MAX_ERRORS]]
    return problem(422, "malformed", "The request is not understood: " + "; ".join(lines), errors=lines)


class StudioRoute(APIRoute):
    """A route whose failures are answered as this module says. `max_body_bytes`: a larger body is answered 413."""

    max_body_bytes: ClassVar[int] = MAX_BODY_BYTES

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            response = await _answer(
                handle, Request(request.scope, _limited(request.receive, self.max_body_bytes), request._send)
            )
            return hardened(response)

        return guarded


def hardened(response: Response) -> Response:
    """With the headers that every answer of the API has."""
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Content-Security-Policy", API_POLICY)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


async def _answer(handle: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
    try:
        return await handle(request)
    except ApiProblem as error:
        return problem(error.status, error.code, error.detail, retry_after=error.retry_after)
    except errors.StudioError as error:
        return of_studio_error(error)
    except RequestValidationError as error:
        return of_validation_error(error)
    except _BodyTooLarge as error:
        return problem(413, "too_large", str(error))
    except HTTPException as error:
        return _of_http_exception(error)
    except ClientDisconnect:
        return problem(499, "gone", "The client closed the connection.")
    except Exception:  # the last line of defence: log it whole, tell nothing
        log.exception("%s %s failed", request.method, request.url.path)
        return problem(500, "internal", errors.UNEXPECTED)


def _of_http_exception(error: HTTPException) -> Response:
    """FastAPI answers a body that cannot be parsed with 400 and wraps what failed while reading it."""
    if isinstance(error.__cause__, _BodyTooLarge):
        return problem(413, "too_large", str(error.__cause__))
    if error.status_code == 400:
        return problem(422, "malformed", "The body is not JSON.")
    return problem(error.status_code, "refused", str(error.detail))


class _BodyTooLarge(Exception):
    pass


def _limited(receive: Receive, most: int) -> Receive:
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise _BodyTooLarge(f"The body is larger than {most // 1024} KiB.")
        return message

    return limited


def _line(item: Mapping[str, Any]) -> str:
    """One problem as a line: where, and the validator's words. Overlong keys, which callers made up, are left out."""
    where = ".".join(str(part) for part in item.get("loc", ()) if len(str(part)) < 40)
    return f"{where}: {item.get('msg', 'is not valid')}"


DOCUMENTED: dict[int, str] = {
    401: "No or no valid token.",
    403: "Not allowed.",
    404: "There is no such thing.",
    409: "It contradicts what is recorded already.",
    410: "It expired.",
    413: "The body is too large.",
    422: "The request is malformed.",
    429: "Too many requests, or more than one person may do in a day; see Retry-After.",
    503: "Busy or still loading; see Retry-After.",
    507: "The disk is full; nothing was recorded.",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of these error answers."""
    return {status: {"model": Problem, "description": DOCUMENTED[status]} for status in (*statuses, 422)}

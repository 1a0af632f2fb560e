"""Error responses of the API: one shape, `{"detail", "code"}`, and never more than a caller may see.

`StudioRoute` is the route class of every route here, so the rules hold wherever the router is included: errors of the
studio become status codes, malformed bodies 422 without echoing them, anything unexpected is logged and answered 500
with a general message. Bodies are bounded while they are read.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dmpo_app import errors
from dmpo_app.io.processes import causes, is_passing_error
from dmpo_app.web.api_models import Problem
from dmpo_app.web.shown_messages import without_paths

_log = logging.getLogger(__name__)

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
    (errors.NotFoundError, 404, "not_found"),
    (errors.ForbiddenError, 403, "not_yours"),
    (errors.NotInvitedError, 403, "invite_needed"),
    (errors.LoginRequiredError, 403, "login_needed"),
    (errors.LoginRefusedError, 403, "login_refused"),
    (errors.ConsentRequiredError, 403, "consent_needed"),
    (errors.ConflictError, 409, "conflict"),
    (errors.ExpiredError, 410, "expired"),
    (errors.RateLimitError, 429, "too_many"),
    (errors.BadInputError, 422, "malformed"),
    (errors.BusyError, 503, "busy"),
    (errors.NotReadyError, 503, "not_ready"),
    (errors.StorageFullError, 507, "storage_full"),
    (errors.BackupUnreachableError, 503, "backup_unreachable"),
    (errors.SystemExhaustedError, 503, "exhausted"),
]
_RETRY_SECONDS = {
    "busy": 2,
    "not_ready": 5,
    "exhausted": 5,
    "storage_full": 30,
    "backup_unreachable": 10,
    "too_many": 3600,
}


_EXHAUSTED = "The server is short of open files, memory or threads, or a disk does not answer; try again in a moment."
_DAMAGED = "This file is missing or damaged in the store, and is not used any more. Ask for another pair."


class ApiError(Exception):
    """An error response of the API, raised by handlers and dependencies."""

    def __init__(self, status: int, code: str, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after = retry_after


def problem(status: int, code: str, detail: str, *, retry_after: int | None = None, **more: Any) -> Response:
    """Build an error response. ASCII JSON, so that no text in it can fail to be encoded."""
    headers = {"Cache-Control": "no-store"}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = json.dumps({"detail": detail, "code": code, **more}, ensure_ascii=True)
    return Response(body, status_code=status, media_type="application/json", headers=headers)


def response_from_studio_error(error: errors.StudioError) -> Response:
    """Error response for a StudioError: what a person may be told; the rest stays in the log."""
    if isinstance(error, errors.DamagedFileError):
        _log.warning("a request met damage: %s", error)
        return problem(410, "damaged", _DAMAGED)
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            return problem(status, code, without_paths(str(error)), retry_after=_RETRY_SECONDS.get(code))
    if isinstance(error, errors.AdapterError):
        _log.warning("an adapter was refused: %s", error)
        return problem(409, "adapter_damaged", "The files of this version are damaged, so it cannot be used.")
    _log.error("a request failed", exc_info=error)
    return problem(500, "internal", errors.UNEXPECTED_MESSAGE)


def response_from_validation_error(error: RequestValidationError) -> Response:
    """Error response 422 that names fields and reasons but never repeats what was sent."""
    lines = [_line(item) for item in error.errors()[:MAX_ERRORS]]
    return problem(422, "malformed", "The request is not understood: " + "; ".join(lines), errors=lines)


def response_from_unexpected(request: Request, error: Exception) -> Response:
    """Error response for any other exception: 503 where the system lacks something now, else 500, logged whole."""
    cause = next(filter(is_passing_error, causes(error)), None)
    if cause is None:
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem(500, "internal", errors.UNEXPECTED_MESSAGE)
    _log.warning("%s %s is to be tried again: %s: %s", request.method, request.url.path, type(cause).__name__, cause)
    return response_from_studio_error(errors.SystemExhaustedError(_EXHAUSTED))


class StudioRoute(APIRoute):
    """A route with the error responses of this module. `max_body_bytes`: a larger body is answered 413.

    Every route documents the errors that any request may meet, so that none is described in the framework's shape.
    """

    max_body_bytes: ClassVar[int] = MAX_BODY_BYTES

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        responses = {**document_errors(*_ANYWHERE), **(options.pop("responses", None) or {})}
        super().__init__(path, endpoint, responses=responses, **options)

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handle = super().get_route_handler()

        async def handle_errors(request: Request) -> Response:
            response = await _call_handler(
                handle, Request(request.scope, _limit_body(request.receive, self.max_body_bytes), request._send)
            )
            return add_security_headers(response)

        return handle_errors


class UnroutedMiddleware:
    """ASGI middleware that answers what has no route, 404 and 405, in the shape of every error.

    `methods_at`: the methods of a path, for `Allow`. The framework answers in plain text, and names the methods of the
    first route that has the path, where another one may have more.
    """

    def __init__(self, app: ASGIApp, methods_at: Callable[[str], list[str]]) -> None:
        self._app = app
        self._methods_at = methods_at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        unrouted_status: int | None = None

        async def send_unless_unrouted(message: Message) -> None:
            nonlocal unrouted_status
            if message["type"] == "http.response.start":
                unrouted_status = self._unrouted_status(scope, message)
            if unrouted_status is None:
                await send(message)

        await self._app(scope, receive, send_unless_unrouted)
        if unrouted_status is None:
            return
        response = problem(404, "not_found", "There is no such path.")
        if unrouted_status == 405:
            response = problem(405, "wrong_method", "This path does not have that method.")
            response.headers["Allow"] = ", ".join(self._methods_at(scope["path"]))
        await add_security_headers(response)(scope, receive, send)

    def _unrouted_status(self, scope: Scope, start: Message) -> int | None:
        """404 or 405 where no route is meant; a 404 of one of our routes is JSON.

        DELETE /votes/export is taken for the withdrawal of a vote called export, until its id is looked at.
        """
        status: int = start["status"]
        if status == 404:
            return None if (b"content-type", b"application/json") in start["headers"] else 404
        is_meant = status != 405 and (status not in (401, 422) or scope["method"] in self._methods_at(scope["path"]))
        return None if is_meant else 405


def add_security_headers(response: Response) -> Response:
    """Add the security headers that every response of the API has."""
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Content-Security-Policy", API_POLICY)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


async def _call_handler(handle: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
    try:
        return await handle(request)
    except ApiError as error:
        return problem(error.status, error.code, error.detail, retry_after=error.retry_after)
    except errors.StudioError as error:
        return response_from_studio_error(error)
    except RequestValidationError as error:
        return response_from_validation_error(error)
    except _BodyTooLargeError as error:
        return problem(413, "too_large", str(error))
    except HTTPException as error:
        return response_from_http_exception(error)
    except ClientDisconnect:
        return problem(499, "gone", "The client closed the connection.")
    except Exception as error:  # noqa: BLE001 - the last line of defence
        return response_from_unexpected(request, error)


def response_from_http_exception(error: HTTPException) -> Response:
    """Error response for an HTTPException of the framework.

    FastAPI answers a body that cannot be parsed with 400 and wraps what failed while reading it.
    """
    if isinstance(error.__cause__, _BodyTooLargeError):
        return problem(413, "too_large", str(error.__cause__))
    if error.status_code == 400:
        return problem(422, "malformed", "The body is not JSON.")
    return problem(error.status_code, "refused", str(error.detail))


class _BodyTooLargeError(Exception):
    pass


def _limit_body(receive: Receive, most: int) -> Receive:
    num_bytes = 0

    async def receive_limited() -> Message:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > most:
            raise _BodyTooLargeError(f"The body is larger than {most // 1024} KiB.")
        return message

    return receive_limited


def _line(item: Mapping[str, Any]) -> str:
    """Format one validation error as a line: field and message. Overlong keys, which callers made up, are left out."""
    field = ".".join(str(part) for part in item.get("loc", ()) if len(str(part)) < 40)
    return f"{field}: {item.get('msg', 'is not valid')}"


ERROR_DESCRIPTIONS: dict[int, str] = {
    401: "No or no valid token.",
    403: "Not allowed.",
    404: "There is no such thing.",
    409: "It contradicts what is recorded already.",
    410: "It expired.",
    413: "The body is too large.",
    422: "The request is malformed.",
    500: "Something unexpected; the server's log has it.",
    429: "Too many requests, or more than one person may do in a day; see Retry-After.",
    503: "Busy or still loading; see Retry-After.",
    507: "The disk is full; nothing was recorded.",
}


_ANYWHERE = (422, 500, 503)
"""Statuses of errors that a request to any route may meet."""


def document_admin_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the error responses of a route for administrators: these, and those that every such route has."""
    return document_errors(401, 403, 429, 503, *statuses)


def document_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe these error responses for OpenAPI."""
    return {status: {"model": Problem, "description": ERROR_DESCRIPTIONS[status]} for status in (*statuses, 422)}

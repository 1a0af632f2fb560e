"""Security middleware of the server: security headers, and no way to Gradio's own endpoints for files.

Requests to the API go to it directly, all others to Gradio's application.

It wraps the whole application from outside, since Gradio adds headers of its own (cross-origin access for any origin
when the host is not local) after everything that can be put inside.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dmpo_app.web.router import PREFIX

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors {ancestors}"
)
SPACES_ANCESTORS = "'self' https://huggingface.co https://*.huggingface.co https://*.hf.space"

BLOCKED_PATHS = (
    "/gradio_api/upload", "/gradio_api/file", "/gradio_api/proxy", "/gradio_api/stream", "/gradio_api/deep_link",
    "/gradio_api/process_recording", "/gradio_api/component_server", "/gradio_api/custom_component", "/gradio_api/runs",
    "/gradio_api/run-history", "/gradio_api/vibe-", "/gradio_api/undo-vibe-", "/gradio_api/dev/", "/gradio_api/mcp",
    "/gradio_api/cancel", "/monitoring", "/svelte/",
)  # fmt: skip
"""Gradio's endpoints that this page has no use for; whatever they would do is answered 404."""

_API = f"{PREFIX}/"
_NOT_FOUND = b'{"detail": "Not Found", "code": "not_found"}'


class SecurityMiddleware:
    """ASGI middleware. `embeddable`: the page may stand in a frame of Spaces, as it has to there."""

    def __init__(self, app: ASGIApp, api: ASGIApp, *, embeddable: bool) -> None:
        self._app = app
        self._api = api
        self._policy = _POLICY.format(ancestors=SPACES_ANCESTORS if embeddable else "'self'")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._set_security_headers(MutableHeaders(scope=message))
            await send(message)

        if scope["path"].startswith(BLOCKED_PATHS):
            await _refuse(send_hardened)
            return
        app = self._api if scope["path"].startswith(_API) else self._app
        await app(scope, receive, send_hardened)

    def _set_security_headers(self, headers: MutableHeaders) -> None:
        for name in [name for name in headers if name.startswith("access-control-")]:
            del headers[name]
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Referrer-Policy", "same-origin")
        headers.setdefault("Content-Security-Policy", self._policy)


async def _refuse(send: Send) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": _NOT_FOUND})

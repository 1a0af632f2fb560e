"""Starts the page and the API on one port, with security headers on every answer, and stops them.

Requests to the API go to it directly, all others to Gradio's application.

The middleware wraps the whole application from outside, since Gradio adds headers of its own (cross-origin access for
any origin when the host is not local) after everything that can be put inside.
"""

import importlib
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

import gradio as gr
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dmpo_app.errors import SetupError
from dmpo_app.ui.assets import FOLDER, Assets
from dmpo_app.ui.page import studio_theme
from dmpo_app.web.ports import free_port, port_taken_message
from dmpo_app.web.router import PREFIX, build_api_app, create_router
from dmpo_app.web.services import Services

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


@dataclass(frozen=True)
class RunningServer:
    """A server that accepts requests."""

    url: str
    port: int
    blocks: gr.Blocks

    def close(self) -> None:
        """Stop accepting, finish what is under way for a few seconds, and return."""
        self.blocks.close(verbose=False)


def launch(blocks: gr.Blocks, services: Services) -> RunningServer:
    """Serve page and API at the settings' host and port; returns as soon as requests are accepted.

    Raises SetupError when the port is taken or the address is not one of this machine.
    """
    settings = services.settings
    preselect_matplotlib_backend()
    assets = Assets.load()
    port = free_port(settings.host, settings.port)
    api = create_router(services)
    routes = [*api.routes, *assets.router().routes]
    try:
        app, url, _ = blocks.launch(
            server_name=settings.host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            share=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            max_file_size="1kb",
            state_session_capacity=200,
            theme=studio_theme(),
            head=assets.head(),
            favicon_path=FOLDER / "logo.svg",
            # Ours come before Gradio's, and before the first request can.
            app_kwargs={"routes": routes, "openapi_url": None},
        )
    except OSError as error:  # taken since the probe, or no answer within Gradio's 5 seconds
        busy = "Or this machine is too busy right now: try again."
        raise SetupError(f"{port_taken_message(settings.host, port)} {busy}") from error
    page = app.middleware_stack or app.build_middleware_stack()
    app.middleware_stack = SecurityMiddleware(page, build_api_app(api, services), embeddable=on_spaces())
    return RunningServer(url=_address(settings.host, port, url), port=port, blocks=blocks)


def preselect_matplotlib_backend() -> None:
    """Choose matplotlib's backend, as Gradio does around every event; without a choice, asking for it imports pyplot.

    Gradio does that on the event loop: with the first event every vote waited for the import, up to seconds.
    """
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        return
    matplotlib.use("agg")


def on_spaces() -> bool:
    """True on a Hugging Face Space, which shows the page in a frame."""
    return "SPACE_ID" in os.environ


def _address(host: str, port: int, url: str) -> str:
    """URL at which a person on this machine opens the page."""
    return f"http://localhost:{port}/" if urlsplit(url).hostname in {"0.0.0.0", "::"} or host == "::" else url

"""The page as it is served: Gradio's app without Gradio's server, and the table of what is open of both.

`launch` of Gradio would run a server with the defaults of its library, and ask itself over HTTP, through whatever proxy
the environment names, whether it is up. Here it only builds the app. The page is rendered once, before the server
starts, so that its policy can name its scripts by their hashes.
"""

import asyncio
import base64
import hashlib
import importlib
import json
import re
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import gradio as gr
import httpx
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dmpo_app.ui.assets import FOLDER, Assets
from dmpo_app.web.error_responses import problem
from dmpo_app.web.gateway import Gateway, OpenPath, TrustedProxies
from dmpo_app.web.http_server import HttpServer, listening_sockets, page_url
from dmpo_app.web.router import build_api_app, create_router
from dmpo_app.web.routes.health_routes import ROOT_PATHS
from dmpo_app.web.services import Services

_PLACEHOLDER = "http://page.invalid"
_ROOT = "document.baseURI.slice(0, -1)"
"""JavaScript for the address that the page was opened at, whatever proxies there are. Gradio writes the one that a
request came with into the page, where a proxy may have changed its scheme, host and path."""
_INLINE_SCRIPT = re.compile(r"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval' {hashes}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors {ancestors}"
)

GRADIO_FILES = (
    r"/assets/[\w-]+\.(js|css)",
    r"/static/fonts/IBMPlexSans/[\w-]+\.woff2",
    r"/static/js/iframeResizer\.contentWindow\.min\.js",
    r"/theme\.css",
    r"/favicon\.ico",
)
"""All that the page asks Gradio for, as patterns of paths. None of it takes a body or depends on who asks."""

MAX_EVENT_BYTES = 16 * 1024
"""A prompt of 1,000 characters with each of them escaped, and the other values of the form."""


class StaticPage:
    """ASGI application of the page: Gradio's document, the same for everybody. `hashes` are of its inline scripts."""

    def __init__(self, document: str) -> None:
        document = document.replace(f'"{_PLACEHOLDER}"', _ROOT).replace(_PLACEHOLDER, "")
        document = document.replace("<head>", f"<head>{Assets.load().icon()}", 1)
        digests = [hashlib.sha256(script.encode()).digest() for script in _INLINE_SCRIPT.findall(document)]
        self.hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
        self._document = document.encode()

    @classmethod
    def render(cls, gradio_app: ASGIApp) -> "StaticPage":
        """Render the page as Gradio answers a browser, without a network; in a thread that has no event loop yet."""
        with ThreadPoolExecutor(1) as thread:
            return cls(thread.submit(asyncio.run, _document(gradio_app)).result())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await HTMLResponse(self._document, headers={"Cache-Control": "no-cache"})(scope, receive, send)


async def _document(gradio_app: ASGIApp) -> str:
    transport = httpx.ASGITransport(gradio_app)
    async with httpx.AsyncClient(transport=transport, base_url=_PLACEHOLDER) as client:
        return (await client.get("/", headers={"Accept-Encoding": "identity"})).raise_for_status().text


class EventGate:
    """ASGI middleware in front of Gradio's queue: events of this page, with plain values, from sessions that exist.

    Gradio downloads what any value of an event names as a file, reads bodies of any size, and answers a session that it
    does not know with a traceback.
    """

    def __init__(self, gradio_app: ASGIApp, blocks: gr.Blocks) -> None:
        self._app = gradio_app
        self._queue = blocks._queue  # only it knows its sessions
        self._events = frozenset(number for number, event in blocks.fns.items() if event.fn is not None)

    async def join(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /gradio_api/queue/join: an event begins."""
        body = await _read_body(receive, MAX_EVENT_BYTES)
        if body is None:
            await problem(413, "too_large", f"An event is at most {MAX_EVENT_BYTES // 1024} KiB.")(scope, receive, send)
        elif not is_plain_event(body, self._events):
            await problem(422, "malformed", "This is no event of the page.")(scope, receive, send)
        else:
            await self._app(scope, _replay(body, receive), send)

    async def listen(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /gradio_api/queue/data: what the events of a session say."""
        session = Request(scope).query_params.get("session_hash", "")
        if session in self._queue.pending_messages_per_session:
            await self._app(scope, receive, send)
        else:
            await problem(404, "not_found", "No event of this session is under way.")(scope, receive, send)


def is_plain_event(body: bytes, events: Iterable[int]) -> bool:
    """True for the body of one of `events` whose values are all numbers, words or null: so none can be a file."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if not isinstance(event, dict) or type(event.get("fn_index")) is not int or event["fn_index"] not in events:
        return False
    data = event.pop("data", None)
    return isinstance(data, list) and not any(isinstance(value, dict | list) for value in (*data, *event.values()))


async def _read_body(receive: Receive, most: int) -> bytes | None:
    """Read a request's body; None when it is larger than `most` bytes, of which no more is read then."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def open_paths(blocks: gr.Blocks, gradio_app: ASGIApp, page: StaticPage, services: Services) -> list[OpenPath]:
    """The table of all that is open, for the gateway."""
    router = create_router(services)
    api = build_api_app(router, services)
    table = [
        OpenPath(r"/api/v1/(?s:.*)", api, methods=()),
        OpenPath(r"/docs|/openapi\.json|/login/callback", api, methods=("GET",)),
        OpenPath("|".join(ROOT_PATHS), api, methods=("GET",)),
        OpenPath(r"/", GZipMiddleware(page)),
        OpenPath(r"/studio/static/[0-9a-f]{16}/[\w/-]+\.(js|css|svg|json)", GZipMiddleware(Assets.load())),
        *(OpenPath(pattern, gradio_app, methods=("GET",)) for pattern in GRADIO_FILES),
    ]
    if services.gpu_minutes is not None:
        gate = EventGate(gradio_app, blocks)
        table.append(OpenPath(r"/gradio_api/queue/join", gate.join, methods=("POST",)))
        table.append(OpenPath(r"/gradio_api/queue/data", gate.listen, methods=("GET",)))
    return table


@dataclass(frozen=True)
class RunningServer:
    """A server that accepts requests."""

    url: str
    port: int
    blocks: gr.Blocks
    gateway: Gateway
    http: HttpServer

    def close(self) -> None:
        """Stop accepting, finish what is under way for a few seconds, and return."""
        self.blocks.close(verbose=False)


def serve(blocks: gr.Blocks, theme: gr.themes.Base, services: Services) -> RunningServer:
    """Serve page and API at the settings' host and port; returns as soon as requests are accepted.

    Raises SetupError when the port is taken or the address is not one of this machine.
    """
    settings = services.settings
    preselect_matplotlib_backend()
    sockets = listening_sockets(settings.host, settings.port)
    try:
        port = int(sockets[0].getsockname()[1])
        url = page_url(settings.host, port, settings.root_path)
        gradio_app = _gradio_app(blocks, theme, url)
        page = StaticPage.render(gradio_app)
        gateway = Gateway(
            open_paths(blocks, gradio_app, page, services),
            root_path=settings.root_path,
            proxies=TrustedProxies(settings.trusted_proxies),
            policy=_POLICY.format(hashes=page.hashes, ancestors=frame_ancestors(settings.frame_ancestors)),
        )
        server = HttpServer(gateway, sockets, lambda: _lifespan(blocks, gradio_app))
        blocks.server = cast("Any", server)  # `blocks.close` stops it, and `spaces` asks it for its port
        server.start()
    except BaseException:
        for listener in sockets:
            listener.close()
        raise
    return RunningServer(url, port, blocks, gateway, server)


def _gradio_app(blocks: gr.Blocks, theme: gr.themes.Base, url: str) -> Any:
    """Gradio's app for these blocks, from its own `launch`: what a server would ask for is set, none is started.

    With blocks that say that they are running, at `url`, `launch` sets up the page, builds the app and returns. It has
    to be `launch`, since `spaces` puts itself into it on ZeroGPU: it packs the weights for the processes with a GPU
    then, and reports that the Space has started.
    """
    blocks.is_running, blocks.is_colab = True, False
    blocks.local_url = cast("Any", url)
    blocks.space_id = None  # with it every visitor's browser asks huggingface.co and Google for what nobody sees here
    app, _, _ = blocks.launch(
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        share=False,
        root_path="",  # also where GRADIO_ROOT_PATH is set: the gateway takes it off
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        max_file_size="1kb",
        state_session_capacity=200,
        theme=theme,
        head=Assets.load().head(),
        favicon_path=FOLDER / "logo.svg",
        app_kwargs={"openapi_url": None},
        _frontend=False,  # no request to itself
    )
    return app


@asynccontextmanager
async def _lifespan(blocks: Any, gradio_app: Any) -> AsyncIterator[None]:
    """The life of Gradio's app in the server's event loop; as `mount_gradio_app` does it."""
    async with gradio_app.router.lifespan_context(gradio_app):
        blocks.run_startup_events()
        await blocks.run_extra_startup_events()
        yield


def frame_ancestors(origins: str) -> str:
    """The sources of the policy's `frame-ancestors`, from DMPO_FRAME_ANCESTORS."""
    return "'none'" if origins == "none" else f"'self' {origins}".strip()


def preselect_matplotlib_backend() -> None:
    """Choose matplotlib's backend, as Gradio does around every event; without a choice, asking for it imports pyplot.

    Gradio does that on the event loop: with the first event every vote waited for the import, up to seconds.
    """
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        return
    matplotlib.use("agg")

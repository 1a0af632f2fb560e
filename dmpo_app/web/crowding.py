"""Turns renders away while the model is busy, before anything is read of them.

A flood of them then costs the event loop, which votes wait for as well, a tenth of what it would cost to understand
each and refuse it.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from dmpo_app.errors import Busy
from dmpo_app.web.error_responses import hardened, of_studio_error
from dmpo_app.web.services import Services


class Crowding:
    """ASGI wrapper around the API; `path`: where renders are asked for."""

    def __init__(self, app: ASGIApp, services: Services, path: str) -> None:
        self._app = app
        self._renderer = services.renderer
        self._most = services.settings.render.queue_size
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == self._path and scope["method"] == "POST":
            waiting = self._renderer.state.pending
            if waiting >= self._most:
                busy = Busy(f"{waiting} images are waiting to be made already; try again in a moment")
                await hardened(of_studio_error(busy))(scope, receive, send)
                return
        await self._app(scope, receive, send)

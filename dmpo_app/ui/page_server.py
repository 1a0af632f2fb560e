"""Web server: starts the page and the API on one port, and stops them."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

import gradio as gr

from dmpo_app.errors import SetupError
from dmpo_app.ui.assets import FOLDER, Assets
from dmpo_app.ui.response_guard import SecurityMiddleware
from dmpo_app.ui.theme import studio_theme
from dmpo_app.web.ports import free_port, port_taken_message
from dmpo_app.web.router import build_api_app, create_router
from dmpo_app.web.services import Services


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

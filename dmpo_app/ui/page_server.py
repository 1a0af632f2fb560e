"""Starts the page and the API on one port, and stops them."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

import gradio as gr

from dmpo_app.errors import SetupProblem
from dmpo_app.ui.assets import FOLDER, Assets
from dmpo_app.ui.response_guard import Guard
from dmpo_app.ui.theme import studio_theme
from dmpo_app.web.ports import free_port, taken
from dmpo_app.web.router import create_router, standing_alone
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

    Raises SetupProblem when the port is taken or the address is not one of this machine.
    """
    settings = services.settings
    settle_matplotlib()
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
        raise SetupProblem(f"{taken(settings.host, port)} {busy}") from error
    page = app.middleware_stack or app.build_middleware_stack()
    app.middleware_stack = Guard(page, standing_alone(api, services), embeddable=on_spaces())
    return RunningServer(url=_address(settings.host, port, url), port=port, blocks=blocks)


def settle_matplotlib() -> None:
    """Choose the backend that Gradio chooses around every event; without one chosen, asking for it imports pyplot.

    Gradio does that on the event loop: with the first event every vote waited for the import, up to seconds.
    """
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        return
    matplotlib.use("agg")


def on_spaces() -> bool:
    """Whether this runs on a Hugging Face Space, which shows the page in a frame."""
    return "SPACE_ID" in os.environ


def _address(host: str, port: int, url: str) -> str:
    """Where a person on this machine opens the page."""
    return f"http://localhost:{port}/" if urlsplit(url).hostname in {"0.0.0.0", "::"} or host == "::" else url

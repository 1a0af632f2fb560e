"""Starts the page and the API on one port, and stops them."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import gradio as gr

from dmpo_app.errors import SetupProblem
from dmpo_app.ui.assets import FOLDER, Assets
from dmpo_app.ui.guard import Guard
from dmpo_app.ui.theme import studio_theme
from dmpo_app.web.routes import create_router
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
    assets = Assets.load()
    port = free_port(settings.host, settings.port)
    routes = [*create_router(services).routes, *assets.router().routes]
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
    except OSError as error:
        raise SetupProblem(_taken(settings.host, port)) from error
    app.middleware_stack = Guard(app.middleware_stack or app.build_middleware_stack(), embeddable=on_spaces())
    return RunningServer(url=_address(settings.host, port, url), port=port, blocks=blocks)


def on_spaces() -> bool:
    """Whether this runs on a Hugging Face Space, which shows the page in a frame."""
    return "SPACE_ID" in os.environ


def free_port(host: str, port: int) -> int:
    """`port` if it can be listened on; 0 takes any. Raises SetupProblem with advice rather than taking another one."""
    address = host.strip("[]")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":  # elsewhere the option would let two servers share the port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            raise SetupProblem(_taken(host, port)) from error
        return int(probe.getsockname()[1])


def _taken(host: str, port: int) -> str:
    return (
        f"cannot listen on {host} port {port}: another program uses it (a studio that still runs?), or the address is "
        f"not one of this machine. Stop the other program, or choose another port: `dmpo serve --port {port + 1}` or "
        "DMPO_PORT; --port 0 takes any free one."
    )


def _address(host: str, port: int, url: str) -> str:
    """Where a person on this machine opens the page."""
    return f"http://localhost:{port}/" if urlsplit(url).hostname in {"0.0.0.0", "::"} or host == "::" else url

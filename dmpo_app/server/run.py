"""Runs the studio's server from start to a clean stop.

The home is locked and the port tried before anything slow happens, so that a mistake is told at once.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rich.console import Console

from dmpo_app.io import stop_signals
from dmpo_app.server.backup_lifecycle import claimed, running_backup
from dmpo_app.server.wiring import (
    build_lent_studio,
    build_renderer,
    build_services,
    build_trainer,
    home_lock,
    open_lineage,
)
from dmpo_app.settings import Settings, for_mode, mode_of
from dmpo_app.web.ports import free_port

if TYPE_CHECKING:
    from dmpo_app.rendering.render_thread import RenderThread
    from dmpo_app.web.services import Services

log = logging.getLogger(__name__)


def run_server(settings: Settings, console: Console) -> None:
    """Serve until SIGTERM, SIGINT or Ctrl-C; a round in progress is checkpointed and goes on at the next start.

    Raises SetupProblem when the port or the home is taken or the base model does not fit.
    """
    renderer: RenderThread | None = None
    with ExitStack() as stack:
        stopping = stack.enter_context(stop_signals())
        mode = mode_of(settings)
        settings = for_mode(settings, mode)
        settings = settings.model_copy(update={"port": free_port(settings.host, settings.port)})
        stack.enter_context(home_lock(settings, f"http://{settings.host}:{settings.port}"))
        kept = claimed(settings, stopping)
        if stopping.is_set():
            return
        lineage = stack.enter_context(open_lineage(settings))
        backup = running_backup(settings, kept, stack)
        admin_token = _admin_token(settings, console)
        if mode == "zerogpu":
            lent = build_lent_studio(settings, lineage)
            services = build_services(
                settings, lineage, lent.pictures, lent.rounds, admin_token, backup, mode=mode, lending=lent.lending
            )
            _open_page(services, stack, console)
        else:
            renderer, trainer = build_renderer(settings, lineage), build_trainer(settings)
            services = build_services(settings, lineage, renderer, trainer, admin_token, backup, mode=mode)
            _open_page(services, stack, console)
            renderer.start()
            stack.callback(renderer.stop)
            if settings.train:
                trainer.start()
                stack.callback(trainer.stop)
        stopping.wait()
        log.info("stopping; a round in progress is kept and goes on at the next start")
    if renderer is not None and renderer.state.phase == "loading":
        _end_while_loading()


def _end_while_loading() -> None:
    """Everything is closed; but torch cannot be interrupted while it loads, and may abort if Python ends beside it."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _open_page(services: Services, stack: ExitStack, console: Console) -> None:
    from dmpo_app.ui import build_ui, launch  # Gradio takes seconds to import: after all that can be refused at once

    stack.callback(services.imports.close)
    server = launch(build_ui(services), services)
    stack.callback(server.close)
    console.print(f"DMPO Studio is at [bold]{server.url}[/]  (Ctrl-C stops it)", highlight=False)


def _admin_token(settings: Settings, console: Console) -> str:
    """The token that was set, or a new one shown on the terminal alone: a log file or a pipe never gets it."""
    if settings.admin_token is not None:
        return settings.admin_token.get_secret_value()
    token = secrets.token_urlsafe(18)
    if console.is_terminal:
        console.print(f"Administrator's token for this run: [bold]{token}[/]", highlight=False)
    else:
        console.print("No terminal to show an administrator's token on; set DMPO_ADMIN_TOKEN to administer.")
    return token

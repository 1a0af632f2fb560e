"""The studio's server, from its start to a clean stop: for `dmpo serve`, and as `Studio(settings).launch()` for Python.

The home is locked and the port tried before anything slow happens, so that a mistake is told at once.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rich.console import Console

from dmpo_app.errors import BadInputError, StudioError
from dmpo_app.io.logs import log_json_to_stderr
from dmpo_app.io.processes import StopFlag, raise_open_files_limit, stop_signals
from dmpo_app.labeling.quality.standing import open_studio_note
from dmpo_app.labeling.sign_in import require_strong_token
from dmpo_app.server import wiring
from dmpo_app.server.backup_lifecycle import claim_backup, start_backup
from dmpo_app.server.start_errors import start_errors_explained
from dmpo_app.settings import Settings, apply_mode, detect_mode
from dmpo_app.web.http_server import free_port, page_url

if TYPE_CHECKING:
    from dmpo_app.rendering.render_thread import RenderThread
    from dmpo_app.ui.serving import RunningServer
    from dmpo_app.web.services import Services


_log = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0
_NO_TOKEN = "No terminal to show an administrator's token on; set DMPO_ADMIN_TOKEN to administer."


@dataclass(frozen=True, slots=True)
class OpenStudio:
    """A studio whose page is up. `renderer` is None on ZeroGPU, which has no process of its own."""

    server: RunningServer
    renderer: RenderThread | None


def run_server(settings: Settings, console: Console) -> None:
    """Serve until SIGTERM, SIGINT or Ctrl-C; a round in progress is checkpointed and goes on at the next start.

    Raises SetupError when the port or the home is taken, the base model does not fit, or anything else keeps the studio
    from starting.
    """
    studio: OpenStudio | None = None
    with ExitStack() as stack:
        stopping = stack.enter_context(stop_signals())
        with start_errors_explained(settings.home):
            studio = open_studio(settings, console, stopping, stack)
        if studio is None:
            return
        while not stopping.wait(_LOOK_SECONDS):
            if (failure := studio.server.http.failure) is not None:  # whoever started it has to start it again
                raise StudioError("the HTTP server has ended by itself") from failure
        _log.info("stopping; a round in progress is kept and goes on at the next start")
    if studio.renderer is not None and studio.renderer.state.phase == "loading":
        _end_while_loading()


def open_studio(settings: Settings, console: Console, stopping: StopFlag, stack: ExitStack) -> OpenStudio | None:
    """Open a studio, whose parts `stack` stops; None when `stopping` is set before the home is opened.

    Raises like `run_server`.
    """
    raise_open_files_limit()
    mode = detect_mode(settings)
    settings = apply_mode(settings, mode)
    settings = settings.model_copy(update={"port": free_port(settings.host, settings.port)})
    admin_token = _admin_token(settings, console)
    stack.enter_context(wiring.home_lock(settings, page_url(settings.host, settings.port, settings.root_path)))
    claimed_backup = claim_backup(settings, stopping)
    if stopping.is_set():
        return None
    lineage = stack.enter_context(wiring.open_lineage(settings, is_server=True))
    backup = start_backup(settings, claimed_backup, stack)
    if (note := open_studio_note(settings)) is not None:
        _log.warning(note)
    if mode == "zerogpu":
        zerogpu_studio = wiring.build_zerogpu_studio(settings, lineage)
        services = wiring.build_services(
            settings,
            lineage,
            zerogpu_studio.renderer,
            zerogpu_studio.trainer,
            admin_token,
            backup,
            mode=mode,
            gpu_minutes=zerogpu_studio.gpu_minutes,
        )
        return OpenStudio(_open_page(services, stack, console), None)
    renderer, trainer = wiring.build_renderer(settings, lineage), wiring.build_trainer(settings)
    services = wiring.build_services(settings, lineage, renderer, trainer, admin_token, backup, mode=mode)
    server = _open_page(services, stack, console)
    renderer.start()
    stack.callback(renderer.stop)
    if settings.train:
        trainer.start()
        stack.callback(trainer.stop)
    return OpenStudio(server, renderer)


def _end_while_loading() -> None:
    """Exit at once: torch cannot be interrupted while it loads, and may abort if Python ends beside it."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _open_page(services: Services, stack: ExitStack, console: Console) -> RunningServer:
    from dmpo_app.ui import build_ui, launch  # Gradio takes seconds to import: after all that can be refused at once

    stack.callback(services.imports.close)
    server = launch(build_ui(services), services)
    stack.callback(server.close)
    services.decisions.start()
    stack.callback(services.decisions.stop)
    if services.settings.log_format == "json":
        log_json_to_stderr()  # once more: Gradio has set handlers of its own
        _log.info("DMPO Studio is at %s; everything is kept in %s", server.url, services.settings.home)
        return server
    console.print(f"Everything is kept in {services.settings.home}", highlight=False, soft_wrap=True)
    console.print(f"DMPO Studio is at [bold]{server.url}[/]  (Ctrl-C stops it)", highlight=False)
    return server


def _admin_token(settings: Settings, console: Console) -> str:
    """Return the administrator's token of the settings, or a new one, shown on a terminal, never in a log or pipe.

    Raises SetupError for one that could be guessed.
    """
    if settings.metrics_token is not None:
        require_strong_token(settings.metrics_token.get_secret_value(), "DMPO_METRICS_TOKEN")
    if settings.admin_token is not None:
        return require_strong_token(settings.admin_token.get_secret_value())
    token = secrets.token_urlsafe(18)
    if console.is_terminal and settings.log_format == "text":
        console.print(f"Administrator's token for this run: [bold]{token}[/]", highlight=False)
    elif settings.log_format == "text":
        console.print(_NO_TOKEN)
    else:
        _log.warning(_NO_TOKEN)
    return token


class Studio:
    """A studio with a home, which `launch` serves.

        Studio().launch()                               serves until Ctrl-C, like `dmpo serve`
        studio = Studio(Settings(home="taste"))
        studio.launch(block=False)                      returns once the page is up at `studio.url`
        studio.close()

    Settings that are not given come from DMPO_* variables and ./dmpo.toml, as for `dmpo serve`. Also a context manager
    that closes on exit.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings.load()
        self._stack = ExitStack()
        self._open: OpenStudio | None = None

    @property
    def url(self) -> str:
        """The page's address. Raises BadInputError unless the studio was launched."""
        if self._open is None:
            raise BadInputError("the studio is not running; launch(block=False) starts it")
        return self._open.server.url

    def launch(self, *, block: bool = True) -> Self:
        """Serve the page; with `block`, until Ctrl-C or SIGTERM, else until `close`.

        Raises SetupError when the port or the home is taken, the base model does not fit, or anything else keeps the
        studio from starting; BadInputError when it runs already.
        """
        if self._open is not None:
            raise BadInputError(f"the studio is running already, at {self.url}")
        if block:
            run_server(self.settings, Console())
            return self
        with ExitStack() as stack, start_errors_explained(self.settings.home):
            self._open = open_studio(self.settings, Console(quiet=True), StopFlag(), stack)
            self._stack = stack.pop_all()
        return self

    def close(self) -> None:
        """Stop serving; a round in progress is checkpointed. Waits for a model that is being loaded."""
        self._open = None
        self._stack.close()

    def __repr__(self) -> str:
        return "<Studio, not running>" if self._open is None else f"<Studio at {self.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

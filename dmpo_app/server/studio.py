"""The studio from Python: `Studio(settings).launch()` serves the page, from a script or beside a notebook."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from rich.console import Console

from dmpo_app.errors import BadInputError
from dmpo_app.server.run import OpenStudio, open_studio, run_server
from dmpo_app.settings import Settings


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
        self.settings = settings or Settings()
        self._stack = ExitStack()
        self._open: OpenStudio | None = None

    @property
    def url(self) -> str:
        """The page's address. Raises BadInputError unless the studio was launched."""
        if self._open is None:
            raise BadInputError("the studio is not running; launch(block=False) starts it")
        return self._open.url

    def launch(self, *, block: bool = True) -> Studio:
        """Serve the page; with `block`, until Ctrl-C or SIGTERM, else until `close`.

        Raises SetupError when the port or the home is taken or the base model does not fit, BadInputError when it runs
        already.
        """
        if self._open is not None:
            raise BadInputError(f"the studio is running already, at {self._open.url}")
        if block:
            run_server(self.settings, Console())
            return self
        with ExitStack() as stack:
            self._open = open_studio(self.settings, Console(quiet=True), threading.Event(), stack)
            self._stack = stack.pop_all()
        return self

    def close(self) -> None:
        """Stop serving; a round in progress is checkpointed. Waits for a model that is being loaded."""
        self._open = None
        self._stack.close()

    def __repr__(self) -> str:
        return "<Studio, not running>" if self._open is None else f"<Studio at {self._open.url}>"

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

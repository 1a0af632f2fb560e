"""Terminal helpers of the commands: settings from options, error messages, logs and progress."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dmpo_app.errors import StudioError
from dmpo_app.settings import Settings

console = Console(stderr=True)
out = Console()

Home = Annotated[Path | None, typer.Option(help="Folder of everything a run writes [DMPO_HOME]", show_default=False)]
Model = Annotated[str | None, typer.Option(help="Base model: folder or hub id [DMPO_BASE_MODEL]", show_default=False)]


def settings_from(**overrides: Any) -> Settings:
    """Load the settings with command line options over them; None means that an option is not set."""
    return Settings(**{name: value for name, value in overrides.items() if value is not None})


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print errors meant for people and exit; anything else is a bug and shows its traceback."""
    try:
        yield
    except StudioError as error:
        console.print(f"[bold red]error:[/] {error}", markup=True, highlight=False)
        raise typer.Exit(1) from error
    except ValidationError as error:
        for problem in error.errors():
            name = "DMPO_" + "__".join(str(part) for part in problem["loc"]).upper()
            console.print(f"[bold red]error:[/] {name}={problem['input']!r}: {problem['msg']}", highlight=False)
        raise typer.Exit(2) from error


def log_to_terminal(level: int) -> None:
    """Log to the terminal: warnings of all libraries, and the studio's own messages from `level` on."""
    handler = RichHandler(console=console, show_path=False, rich_tracebacks=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s", force=True)
    logging.getLogger("dmpo_app").setLevel(level)


def progress() -> Progress:
    """Create a progress bar on the terminal; use as a context manager."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)

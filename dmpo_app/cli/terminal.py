"""Terminal helpers of the commands: error messages, logs and progress."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dmpo_app.errors import StudioError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic.fields import FieldInfo

console = Console(stderr=True)
out = Console()


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print errors meant for people and exit; anything else is a bug and shows its traceback."""
    try:
        yield
    except StudioError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        raise typer.Exit(1) from error
    except ValueError as error:
        from pydantic import ValidationError

        if not isinstance(error, ValidationError):
            raise
        for refusal in dict.fromkeys(_refusals(error)):
            console.print(f"[bold red]error:[/] {escape(refusal)}", highlight=False)
        raise typer.Exit(2) from error


def _refusals(error: ValidationError) -> Iterator[str]:
    """Yield a line for each setting that was refused, with its variable and, unless it is a secret, its value."""
    for problem in error.errors():
        path, info = _locate(problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        name = "DMPO_" + "__".join(map(str, path)).upper()
        if not path:
            yield message
        elif _is_group(info):  # the input is the whole group, secrets and all
            yield f"{name}__...: {message}"
        else:
            value = "(hidden)" if info is not None and "SecretStr" in str(info.annotation) else repr(problem["input"])
            yield f"{name}={value}: {message}"


def _locate(location: tuple[int | str, ...]) -> tuple[tuple[int | str, ...], FieldInfo | None]:
    """The part of a location that names a setting or a group, and its field; None for a name that there is not.

    What follows in it is pydantic's: which one of a union's types refused the value.
    """
    from dmpo_app.settings import Settings

    model: type[BaseModel] = Settings
    info = None
    for index, part in enumerate(location):
        info = model.model_fields.get(str(part))
        if info is None:
            return location, None
        if not _is_group(info):
            return location[: index + 1], info
        assert isinstance(info.annotation, type)
        model = info.annotation
    return location, info


def _is_group(info: FieldInfo | None) -> bool:
    from pydantic import BaseModel

    return info is not None and isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)


def log_to_terminal(level: int) -> None:
    """Log to the terminal: warnings of all libraries, and the studio's own messages from `level` on."""
    handler = RichHandler(console=console, show_path=False, rich_tracebacks=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s", force=True)
    logging.getLogger("dmpo_app").setLevel(level)


def progress() -> Progress:
    """Create a progress bar on the terminal; use as a context manager."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)

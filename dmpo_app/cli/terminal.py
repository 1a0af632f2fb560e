"""The commands' common ground: shared options, settings from them, errors as sentences, logs and progress.

    dmpo --home votes/cats status
    dmpo status --home votes/cats

A command that needs the settings has a parameter `context: StudioContext` and calls `context.load_settings()`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer.core import TyperCommand, TyperGroup

from dmpo_app.errors import StudioError
from dmpo_app.io.files import make_files_private
from dmpo_app.io.logs import log_json_to_stderr

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic.fields import FieldInfo

    from dmpo_app.settings import Settings


console = Console(stderr=True)
out = Console()


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print errors meant for people, unwrapped, and exit; anything else is a bug and shows its traceback."""
    try:
        yield
    except StudioError as error:
        logging.getLogger(__name__).debug("the error in full", exc_info=error)
        _print_error(str(error))
        raise typer.Exit(1) from error
    except ValueError as error:
        from pydantic import ValidationError

        if not isinstance(error, ValidationError):
            raise
        for refusal in dict.fromkeys(_refusals(error)):
            _print_error(refusal)
        raise typer.Exit(2) from error


def _print_error(message: str) -> None:
    try:
        console.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    except OSError:  # too many files are open for what rich still has to import
        sys.stderr.write(f"error: {message}\n")


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


CommandFunction = TypeVar("CommandFunction", bound=Callable[..., Any])
_PANEL = "Options of every command"


@dataclass(frozen=True, slots=True)
class SharedOptions:
    """Values of the options that every command takes; None: not given."""

    home: Path | None = None
    base_model: str | None = None
    config: Path | None = None


class StudioContext(typer.Context):
    """The context of a running command, with the options that every command takes."""

    @property
    def shared_options(self) -> SharedOptions:
        """Those given after the command's name, over those before it."""
        return self.find_object(SharedOptions) or SharedOptions()

    def load_settings(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        train: bool | None = None,
        nested: Mapping[str, object] | None = None,
    ) -> Settings:
        """Load the settings with the options given over everything else; from then on logs have the format they name.

        None means that an option is not set.

        The process is then one that works on a home: its files are private from here on, and it knows its limits.
        `nested` has settings of any name, in groups like theirs; an option given by its own name wins over it.
        """
        from dmpo_app.settings import Settings
        from dmpo_app.settings.host import provide_caches
        from dmpo_app.settings.resources import limit_libraries

        own = {"host": host, "port": port, "train": train}
        given = {name: value for name, value in own.items() if value is not None}
        settings = Settings.load({**(nested or {}), **self.shared_settings, **given}, self.shared_options.config)
        if settings.log_format == "json":
            log_json_to_stderr()
        self.call_on_close(make_files_private())
        limit_libraries()
        provide_caches(settings.home)
        return settings

    @property
    def shared_settings(self) -> dict[str, object]:
        """The shared options that were given and are settings, by the names of the fields."""
        values = asdict(self.shared_options)
        return {name: value for name, value in values.items() if value is not None and name != "config"}


def _keep(context: StudioContext, parameter: typer.CallbackParam, value: Any) -> Any:
    """Keep the value of a shared option in the context, for this command and those below it."""
    if value is not None:
        if parameter.name == "config" and not value.is_file():
            raise typer.BadParameter(
                f"there is no file {value}; it holds settings, like dmpo.toml (a data set's configuration is --subset)"
            )
        context.obj = replace(context.shared_options, **{str(parameter.name): value})
    return value


def _shared(*names: str, help: str, **attributes: Any) -> Any:
    return typer.Option(
        *names, help=help, callback=_keep, expose_value=False, rich_help_panel=_PANEL, show_default=False, **attributes
    )


def _declaration(
    home: Annotated[Path | None, _shared("--home", help="Folder of everything a run writes [DMPO_HOME]")] = None,
    base_model: Annotated[
        str | None, _shared("--base-model", "--model", help="Base model: folder or hub id [DMPO_BASE_MODEL]")
    ] = None,
    config: Annotated[
        Path | None, _shared("--config", metavar="FILE", help="File of settings, instead of dmpo.toml in this folder")
    ] = None,
) -> None:
    """Declare the shared options as the parameters of a command that nobody calls."""


def _parameters() -> list[Any]:
    """Make the shared options anew, as Typer makes those of any function."""
    declared = typer.Typer(add_completion=False)
    declared.command()(_declaration)
    return typer.main.get_command(declared).params


class StudioCommand(TyperCommand):
    """A command with the shared options beside its own."""

    context_class = StudioContext

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params = [*self.params, *_parameters()]


class StudioGroup(TyperGroup):
    """A group of commands that takes the shared options too, for all commands in it."""

    context_class = StudioContext

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params = [*self.params, *_parameters()]


class StudioTyper(typer.Typer):
    """A Typer application whose commands and groups take the shared options."""

    def __init__(self, *, help: str) -> None:
        super().__init__(cls=StudioGroup, no_args_is_help=True, pretty_exceptions_enable=False, help=help)

    def command(self, name: str | None = None, **attributes: Any) -> Callable[[CommandFunction], CommandFunction]:
        return super().command(name, **{"cls": StudioCommand, **attributes})

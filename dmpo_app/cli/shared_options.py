"""Options that every command takes, declared once, and the command classes that add them: before its name and after it.

    dmpo --home votes/cats status
    dmpo status --home votes/cats

A command that needs the settings has a parameter `context: StudioContext` and calls `context.load_settings()`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from dmpo_app.settings import Settings

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
        """Load the settings with the options given over everything else; None means that an option is not set.

        `nested` has settings of any name, in groups like theirs; an option given by its own name wins over it.
        """
        from dmpo_app.settings import Settings

        own = {"host": host, "port": port, "train": train}
        given = {name: value for name, value in own.items() if value is not None}
        return Settings.load({**(nested or {}), **self.shared_settings, **given}, self.shared_options.config)

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

"""Settings that differ from their defaults, and the source that set each of them: an option, a variable, a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_settings import EnvSettingsSource

from dmpo_app.settings.tree import CONFIG_FILE, Settings, toml_source


class SettingChange(NamedTuple):
    """A setting that differs from its default."""

    variable: str
    value: str
    default: str
    origin: str
    """option, environment, file NAME, or other settings: one that follows from another, as a learning rate does from
    its optimizer."""


def find_changes(
    settings: Settings, options: Mapping[str, Any] | None = None, config_file: Path | None = None
) -> list[SettingChange]:
    """Find the settings that differ from their defaults. The arguments are those that the settings were loaded with."""
    path_of_file = config_file or CONFIG_FILE
    sources: dict[str, Mapping[str, Any]] = {
        "option": options or {},
        "environment": EnvSettingsSource(Settings)(),
        f"file {path_of_file}": toml_source(Settings, path_of_file)(),
    }
    defaults = {field.path: field.value for field in Settings.model_construct().fields()}
    return [
        SettingChange(field.variable, str(field.value), str(defaults[field.path]), _origin(field.path, sources))
        for field in settings.fields()
        if field.value != defaults[field.path]
    ]


def _origin(path: tuple[str, ...], sources: Mapping[str, Mapping[str, Any]]) -> str:
    """The first of the sources, strongest first, that sets this path."""
    return next((name for name, values in sources.items() if _sets(values, path)), "other settings")


def _sets(values: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """True when nested values hold something at this path, or a whole at one of its parents."""
    value: Any = values
    for name in path:
        if not isinstance(value, Mapping):
            return True
        if name not in value:
            return False
        value = value[name]
    return True

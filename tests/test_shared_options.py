"""Every command of `dmpo`, with every option that all commands take, before its name and after it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from dmpo_app.cli.main import app
from dmpo_app.settings import Settings
from tests.studio_process import PROJECT_ROOT


class SettingsLoadedError(BaseException):
    """Ends a command as soon as it has loaded its settings."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("settings loaded")
        self.settings = settings


NEEDS_NO_SETTINGS = {"objectives", "restore", "scorers", "simulate", "space create", "space update"}
ARGUMENTS = {
    "gold add": ["1", "a"],
    "simulate": ["list"],
    "space create": ["ada/studio", "--secret", "NO_SUCH_VARIABLE"],  # refused before the Hub is asked
    "space update": ["ada/studio", "--secret", "NO_SUCH_VARIABLE"],
}
"""Arguments of commands that would refuse the number 1, or would go far without settings."""


def commands_of(group: TyperGroup, *names: str) -> Iterator[tuple[str, list[Any]]]:
    """Yield the names of every command, with its parameters."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands_of(command, *names, name)
        else:
            yield " ".join((*names, name)), command.params


def root() -> TyperGroup:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


ROOT = root()  # CliRunner would build the whole tree for each of 400 calls, 50 ms
COMMANDS = dict(commands_of(ROOT))


def required_arguments(name: str) -> list[str]:
    """A value for every parameter that a command cannot do without."""
    required = [parameter for parameter in COMMANDS[name] if parameter.required]
    arguments = ["1" for parameter in required if parameter.param_type_name == "argument"]
    options = [
        word for parameter in required if parameter.param_type_name == "option" for word in (parameter.opts[0], "1")
    ]
    return ARGUMENTS.get(name, [*arguments, *options])


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set from outside, and a command ends where it has its settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("DMPO_HOME", "DMPO_BASE_MODEL", "DMPO_MIN_VOTES"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "my.toml").write_text("min_votes = 9\n")
    load = Settings.load.__func__  # type: ignore[attr-defined]

    def load_and_stop(cls: type[Settings], *arguments: Any) -> Settings:
        raise SettingsLoadedError(load(cls, *arguments))

    monkeypatch.setattr(Settings, "load", classmethod(load_and_stop))


def settings_of(name: str, before: list[str], after: list[str]) -> Settings | None:
    """The settings a command loads, if it does; `before` and `after` are options on either side of its name."""
    words = [*before, *name.split(), *required_arguments(name), *after]
    try:
        # An option that is refused raises an error, a setting ends with 2; with 1, what is asked for is not there.
        assert ROOT.main(words, standalone_mode=False) != 2, words
    except SettingsLoadedError as loaded:
        return loaded.settings
    return None


def test_the_commands_are_found() -> None:
    assert {"serve", "train", "gold list", "adapters push", "prompts import"} <= COMMANDS.keys()
    assert COMMANDS.keys() >= NEEDS_NO_SETTINGS


def test_the_commands_and_the_shared_options_are_in_the_documents() -> None:
    usage = (PROJECT_ROOT / "docs/usage.md").read_text()
    commands = {name for name, command in ROOT.commands.items() if not command.hidden}
    assert {name for name in commands if f"`dmpo {name}" not in usage} == set()
    for option in ("--home", "--base-model", "--model", "--config"):
        assert f"`{option} " in usage


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_takes_every_shared_option_before_its_name_and_after_it(name: str) -> None:
    for option, value, setting, expected in (
        ("--home", "here", "home", Path("here")),
        ("--base-model", "somebody/model", "base_model", "somebody/model"),
        ("--model", "somebody/model", "base_model", "somebody/model"),
        ("--config", "my.toml", "min_votes", 9),
    ):
        for before, after in (([option, value], []), ([], [option, value])):
            settings = settings_of(name, before, after)
            assert (settings is None) == (name in NEEDS_NO_SETTINGS)
            if settings is not None:
                assert getattr(settings, setting) == expected, (option, before)


def test_an_option_after_the_name_wins_and_the_others_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMPO_HOME", "from-the-environment")
    group_option = ["--home", "a", "--model", "m", "gold", "--home", "b", "list"]
    for words, home in ((group_option, "b"), ([*group_option, "--home", "c"], "c")):
        with pytest.raises(SettingsLoadedError) as loaded:
            CliRunner().invoke(app, words)
        assert loaded.value.settings.home == Path(home)
        assert loaded.value.settings.base_model == "m"


def test_a_file_of_settings_that_is_not_there_is_refused() -> None:
    result = CliRunner().invoke(app, ["train", "--config", "gone.toml"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "there is no file gone.toml" in " ".join(result.output.split())


def test_options_of_training_win_over_those_by_name(tmp_path: Path) -> None:
    words = ["--set", "home=x", "--set", "round.rank=16", "--set", "round.seed=1", "--seed", "2", "--home", "y"]
    settings = settings_of("train", [], words)
    assert settings is not None
    assert (settings.home, settings.round.rank, settings.round.seed) == (Path("y"), 16, 2)

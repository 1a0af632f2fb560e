"""Every setting of the tree, set to other values than its default: by its variable, in dmpo.toml, in a named file."""

import json
import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import SecretStr, TypeAdapter, ValidationError

from dmpo_app.errors import SetupError
from dmpo_app.settings import SettingField, Settings, find_changes

FIELDS = {field.variable: field for field in Settings.model_construct().fields()}

EXAMPLES: dict[str, Any] = {
    "DMPO_IDENTITY__OIDC_ISSUER": "https://login.example.org",
    "DMPO_IDENTITY__PUBLIC_URL": "https://studio.example.org",
    "DMPO_IDENTITY__SCOPES": ["openid", "email"],
    "DMPO_LABELING__QUESTIONS": ["overall", "fit"],
    "DMPO_LABELING__ASKS": ["strength", "comment"],
    "DMPO_ROUND__OBJECTIVE_OPTIONS": {"order": 0.5},
    "DMPO_ROUND__SCORING__SCORERS": [{"name": "sharpness", "temperature": 0.5}, {"name": "pickscore"}],
}
"""Values of settings of which not any text or list will do."""

COMPANIONS: dict[str, dict[str, Any]] = {
    "DMPO_IDENTITY__OIDC_ISSUER": {"client_id": "studio"},
    "DMPO_LABELING__TRAINING_QUESTION": {"questions": ["overall", "appeal", "fit"]},
}
"""Settings of the same group without which a value makes no sense."""


def alternatives(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, UnionType):
        for one in get_args(annotation):
            yield from alternatives(one)
    elif get_origin(annotation) is Annotated:
        yield from alternatives(get_args(annotation)[0])
    else:
        yield annotation


def candidates(variable: str, field: SettingField) -> Iterator[Any]:
    """Yield values for each type that a setting may have, as JSON has them; several for a number: one will do."""
    for kind in alternatives(field.info.annotation):
        if kind is NoneType:
            yield [None]
        elif get_origin(kind) is Literal:
            yield from ([choice] for choice in get_args(kind))
        elif kind is bool:
            yield [not field.value]
        elif isinstance(kind, type) and issubclass(kind, Enum):
            yield from ([member.value] for member in kind)
        elif kind in (int, float):
            yield [kind(number) for number in (2, 3, 0.5, 16, 64, 1, -0.25, 1024)]
        elif kind in (str, Path, SecretStr):
            yield [EXAMPLES.get(variable, "something")]
        else:
            assert get_origin(kind) in (tuple, dict), f"a kind of setting that no test has a value for: {kind}"
            yield [EXAMPLES.get(variable, ["one", "two"])]


def cases() -> Iterator[tuple[str, Any]]:
    for variable, field in FIELDS.items():
        adapter = adapter_of(field)
        for values in candidates(variable, field):
            for value in values:
                try:
                    is_default = adapter.validate_python(value) == field.value
                except ValidationError:
                    continue
                if not is_default:
                    yield variable, value
                    break


def adapter_of(field: SettingField) -> TypeAdapter[Any]:
    kind: Any = Annotated[field.info.annotation, field.info]
    return TypeAdapter(kind)


CASES = list(cases())
every_setting = pytest.mark.parametrize(("variable", "value"), CASES, ids=[f"{name}={value}" for name, value in CASES])


def as_text(value: Any) -> str:
    """The value as somebody types it for an environment variable."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {as_toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps("none" if value is None else value)


def values_of_group(variable: str, value: Any) -> dict[str, Any]:
    return {FIELDS[variable].path[-1]: value, **COMPANIONS.get(variable, {})}


def write_toml(path: Path, variable: str, value: Any) -> Path:
    *groups, _ = FIELDS[variable].path
    lines = [f"{name} = {as_toml(item)}" for name, item in values_of_group(variable, value).items()]
    path.write_text("\n".join([f"[{'.'.join(groups)}]"] * bool(groups) + lines) + "\n")
    return path


def check(settings: Settings, variable: str, value: Any) -> None:
    """The setting has the value, and no other setting but its companions has changed."""
    present = {field.variable: field.value for field in settings.fields()}
    assert present[variable] == adapter_of(FIELDS[variable]).validate_python(value)
    prefix = variable.removesuffix(FIELDS[variable].path[-1].upper())
    allowed = {variable, *(prefix + name.upper() for name in COMPANIONS.get(variable, {}))}
    allowed |= {"DMPO_ROUND__LEARNING_RATE"} if value == "prodigy" else set()
    assert {name for name in FIELDS if present[name] != FIELDS[name].value} <= allowed


@pytest.fixture(autouse=True)
def nothing_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("DMPO_", "SPACE_", "OAUTH_"))]:
        monkeypatch.delenv(name)


def test_every_setting_has_a_case() -> None:
    assert {variable for variable, _ in CASES} == FIELDS.keys()
    assert ("DMPO_LABELING__RANKING_SIZE", 4) in CASES
    assert ("DMPO_TRAINER__PERIOD_MINUTES", None) in CASES


@every_setting
def test_a_setting_is_set_by_its_variable(variable: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = variable.removesuffix(FIELDS[variable].path[-1].upper())
    for name, item in values_of_group(variable, value).items():
        monkeypatch.setenv(prefix + name.upper(), as_text(item))
    settings = Settings.load()
    check(settings, variable, value)
    changes = {change.variable: change.origin for change in find_changes(settings)}
    assert changes[variable] == "environment"


@every_setting
def test_a_setting_is_set_by_a_file(variable: str, value: Any, tmp_path: Path) -> None:
    named = write_toml(tmp_path / "named.toml", variable, value)
    settings = Settings.load(config_file=named)
    check(settings, variable, value)
    assert (variable, f"file {named}") in {(one.variable, one.origin) for one in find_changes(settings, {}, named)}
    assert Settings.load() == Settings()
    named.rename(tmp_path / "dmpo.toml")
    check(Settings(), variable, value)


def test_every_setting_that_may_be_none_can_be_set_to_none(monkeypatch: pytest.MonkeyPatch) -> None:
    optional = {name for name, field in FIELDS.items() if NoneType in alternatives(field.info.annotation)}
    assert {"DMPO_ROUND__BETA", "DMPO_DATABASE_URL", "DMPO_ROUND__LIMITS__GRAD_NORM"} <= optional
    for name in optional:
        monkeypatch.setenv(name, "None")
    assert {field.variable for field in Settings.load().fields() if field.value is None} == optional


def test_an_option_is_over_a_variable_is_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = tmp_path / "named.toml"
    named.write_text("min_votes = 5\nport = 1\n[round]\nrank = 4\noptimizer = 'prodigy'\n")
    (tmp_path / "dmpo.toml").write_text("host = 'not-read'\n")
    monkeypatch.setenv("DMPO_MIN_VOTES", "6")
    monkeypatch.setenv("DMPO_ROUND", '{"alpha": 0.1}')
    monkeypatch.setenv("DMPO_ADMIN_TOKEN", "very-secret")
    options = {"port": 2, "round": {"beta": 9.0}}
    settings = Settings.load(options, named)
    changes = find_changes(settings, options, named)
    assert {(change.variable, change.value, change.origin) for change in changes} == {
        ("DMPO_MIN_VOTES", "6", "environment"),
        ("DMPO_PORT", "2", "option"),
        ("DMPO_ADMIN_TOKEN", "**********", "environment"),
        ("DMPO_ROUND__BETA", "9.0", "option"),
        ("DMPO_ROUND__ALPHA", "0.1", "environment"),
        ("DMPO_ROUND__RANK", "4", f"file {named}"),
        ("DMPO_ROUND__OPTIMIZER", "prodigy", f"file {named}"),
        ("DMPO_ROUND__LEARNING_RATE", "1.0", "other settings"),
    }


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"gone\.toml"):
        Settings.load(config_file=tmp_path / "gone.toml")
    (tmp_path / "dmpo.toml").write_text("min_votes = = 3\n")
    with pytest.raises(SetupError, match=r"dmpo\.toml cannot be read: .*line 1"):
        Settings()


def test_a_list_that_is_no_json_is_named_with_its_text_and_a_group_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMPO_POOL__TAGS", "animals")
    with pytest.raises(SetupError, match="DMPO_POOL__TAGS='animals': expected JSON"):
        Settings.load()
    monkeypatch.delenv("DMPO_POOL__TAGS")
    monkeypatch.setenv("DMPO_IDENTITY", '{"client_secret": "hidden"')
    with pytest.raises(SetupError, match="DMPO_IDENTITY: expected JSON"):
        Settings.load()


@pytest.mark.parametrize(("variable", "text"), [("DMPO_LABELING__RANKING_SIZE", "2"), ("DMPO_PORT", "none")])
def test_numbers_and_none_are_read_only_where_a_setting_may_have_them(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ValidationError, match=text):
        Settings.load()

"""Limits of the domain: defined once, and the same on the command line, in the API and for what is stored."""

import ast
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

import dmpo_app
from dmpo_app.cli.main import app
from dmpo_app.domain import limits
from dmpo_app.web.api_models import RenderBody

PACKAGE = Path(dmpo_app.__file__).parent
NAMES = {name for name in vars(limits) if name.startswith("MAX_")}


def test_no_other_module_defines_a_limit_of_the_domain_again() -> None:
    again = [
        f"{path.relative_to(PACKAGE)}: {target.id}"
        for path in PACKAGE.rglob("*.py")
        if path != Path(limits.__file__)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in NAMES
    ]
    assert {"MAX_HANDLE", "MAX_SEED", "MAX_STRENGTH"} <= NAMES
    assert again == []


@pytest.mark.parametrize(
    ("field", "largest", "beyond"),
    [
        ("seed", limits.MAX_SEED, limits.MAX_SEED + 1),
        ("strength", limits.MAX_STRENGTH, limits.MAX_STRENGTH + 0.01),
        ("guidance", limits.MAX_GUIDANCE, limits.MAX_GUIDANCE + 0.01),
        ("versions", [limits.MAX_VERSION], [limits.MAX_VERSION + 1]),
    ],
)
def test_the_api_takes_what_the_domain_allows_and_no_more(field: str, largest: object, beyond: object) -> None:
    body: dict[str, object] = {"prompt": "a cat", "seed": 1, "versions": [0]}
    assert getattr(RenderBody.model_validate({**body, field: largest}), field) == largest
    with pytest.raises(ValidationError, match=field):
        RenderBody.model_validate({**body, field: beyond})


@pytest.mark.parametrize("words", [("render", "a cat"), ("adapters", "merge", "1", "merged")])
def test_the_command_line_refuses_a_strength_beyond_the_limit_of_the_domain(words: tuple[str, ...]) -> None:
    refused = CliRunner().invoke(app, [*words, "--strength", str(2 * limits.MAX_STRENGTH)])
    assert refused.exit_code == 2
    assert "--strength" in refused.output
    assert str(limits.MAX_STRENGTH) in refused.output

"""Objectives of one's own: registered, installed or named as module:name; checked before they are trained with."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dmpo_app.errors import BadInputError, SetupError
from dmpo_app.objective import (
    OBJECTIVES,
    Needs,
    PairTerms,
    get_objective,
    load_installed,
    load_objective,
    register,
    registry,
    unregister,
)
from dmpo_app.objective.registry import check_loss


@pytest.fixture(autouse=True)
def only_the_studios_afterwards() -> Iterator[None]:
    before = set(OBJECTIVES)
    yield
    for name in set(OBJECTIVES) - before:
        unregister(name)


def hinge(margin: Tensor, target: Tensor, *, width: float = 1.0) -> Tensor:
    """max(0, width - u_w)."""
    return (width - margin * torch.sign(target - 0.5)).clamp(min=0)


def test_a_function_of_margin_and_target_becomes_an_objective_by_its_name() -> None:
    objective = register("hinge", hinge)
    assert get_objective("hinge", {"width": 2.0}) is objective is OBJECTIVES["hinge"]
    assert (objective.options, objective.needs, objective.formula) == (
        {"width": 1.0},
        Needs.ERRORS,
        "max(0, width - u_w)",
    )
    with pytest.raises(SetupError, match=r"hinge has no option 'breadth'; it has: width"):
        get_objective("hinge", {"breadth": 1.0})


def test_a_function_of_terms_can_ask_for_predictions_or_for_nothing_of_the_reference() -> None:
    def residual_distance(terms: PairTerms, *, beta: float) -> Tensor:
        assert terms.residuals is not None
        assert terms.residuals.reference_a is not None
        return beta * (terms.residuals.policy_a - terms.residuals.reference_a).square().mean((1, 2, 3)) + terms.policy_b

    def winner_alone(terms: PairTerms, *, beta: float) -> Tensor:
        return torch.where(terms.target > 0.5, terms.policy_a, terms.policy_b)

    register("residual", residual_distance, needs="predictions", start_spread=None)
    register("winner", winner_alone, needs=Needs.NOTHING)
    assert (OBJECTIVES["residual"].needs, OBJECTIVES["winner"].needs) == (Needs.PREDICTIONS, Needs.NOTHING)
    with pytest.raises(BadInputError, match=r"'reference' is not finite at a margin of 0.*`needs`"):
        register("reference", lambda terms, *, beta: terms.policy_a - terms.reference_a, needs="nothing")


def test_names_that_are_taken_or_no_names_are_refused() -> None:
    register("hinge", hinge)
    with pytest.raises(BadInputError, match=r"'hinge' already.*replace=True"):
        register("hinge", hinge)
    assert (
        register("hinge", lambda margin, target: hinge(margin, target, width=3.0), replace=True) is OBJECTIVES["hinge"]
    )
    with pytest.raises(BadInputError, match="'dpo' is an objective of the studio"):
        register("dpo", hinge, replace=True)
    with pytest.raises(BadInputError, match="'my loss' is no name"):
        register("my loss", hinge)
    with pytest.raises(BadInputError, match="'dmpo' is no objective that was registered"):
        unregister("dmpo")
    with pytest.raises(BadInputError, match="needs='everything' is none of nothing, errors, predictions"):
        register("other", hinge, needs="everything")


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (lambda margin, target: hinge(margin, target).mean(), r"gave a tensor of \(\) for 21 pairs"),
        (lambda margin, target: 1.0, "gave float for 21 pairs"),
        (lambda margin, target: hinge(margin, target).detach(), "has no gradient"),
        (lambda margin, target: 0 * margin, "moves the policy on no pair"),
        (lambda margin, target: -torch.log(torch.sigmoid(margin)), r"not finite at a margin of -200 .*logsigmoid"),
        (lambda margin, target: (margin * margin).sqrt(), "gradient of the loss 'mine' is not finite at a margin of 0"),
        (lambda margin, target: hinge(margin, target) - margin.mean(), "depends on other pairs"),
        (lambda margin, target: hinge(margin), "fails on a small batch: TypeError"),  # type: ignore[call-arg]
        (lambda margin: margin, r"is called as mine\(margin\), expected loss\(margin, target"),
        (lambda a, b, c: a, r"expected loss\(margin, target"),
        (lambda margin, target, reduction="mean": margin, "option 'reduction' of the loss 'mine' is 'mean'"),
        (3, "no function with a signature"),
    ],
)
def test_a_loss_that_cannot_be_trained_with_is_refused_with_a_sentence(loss: Any, sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence):
        register("mine", loss)
    assert "mine" not in OBJECTIVES


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_the_studios_own_objectives_pass_the_check(name: str) -> None:
    check_loss(OBJECTIVES[name])


@pytest.fixture
def losses_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "losses_of_a_lab.py"
    file.write_text(
        "from dmpo_app.objective import OBJECTIVES\n"
        "def square(margin, target):\n    return (margin - 1).square()\n"
        "borrowed = OBJECTIVES['mapo']\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return file


def test_a_module_and_name_is_imported_where_settings_name_it_and_nowhere_else(losses_file: Path) -> None:
    with pytest.raises(SetupError, match=r"'losses_of_a_lab:square' is no objective.*DMPO_ROUND__OBJECTIVE"):
        get_objective("losses_of_a_lab:square")
    assert "losses_of_a_lab" not in sys.modules
    assert load_objective("losses_of_a_lab:square").loss is not None
    assert get_objective("losses_of_a_lab:square").name == "losses_of_a_lab:square"
    assert load_objective("losses_of_a_lab:borrowed", {"weight": 0.2}).needs is Needs.NOTHING


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no_such_module:loss", "ModuleNotFoundError.*PYTHONPATH"),
        ("losses_of_a_lab:nothing", "AttributeError"),
        ("losses_of_a_lab:number", "is no objective: the loss"),
        (":loss", "ValueError"),
    ],
)
def test_a_module_or_name_that_is_no_objective_gets_a_sentence(losses_file: Path, name: str, sentence: str) -> None:
    with pytest.raises(SetupError, match=sentence):
        load_objective(name)


def test_installed_packages_name_objectives_by_entry_points(losses_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry_points: Callable[..., Any] = lambda group: [  # noqa: E731
        EntryPoint("square", "losses_of_a_lab:square", group),
        EntryPoint("dmpo", "losses_of_a_lab:square", group),
    ]
    monkeypatch.setattr(registry, "entry_points", entry_points)
    with pytest.raises(SetupError, match=r"'cube' is no objective; there are dmpo.*square"):
        get_objective("cube")
    studios = OBJECTIVES["dmpo"]
    load_installed()
    assert get_objective("square").source == "an objective of one's own"
    assert OBJECTIVES["dmpo"] is studios


def test_the_command_lists_installed_objectives(losses_file: Path, tmp_path: Path) -> None:
    information = tmp_path / "lab-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[dmpo.objectives]\nsquare = losses_of_a_lab:square\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from dmpo_app.cli.main import app; app(['objectives'])"
    listing = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "square" in listing
    assert "DMPO" in listing

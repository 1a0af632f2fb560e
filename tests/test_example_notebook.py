"""The notebook runs from top to bottom, as a person would run it, with fewer pairs and steps."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmpo_app import losses
from tests.model_fixtures import fixed_threads
from tests.studio_process import PROJECT_ROOT

__all__ = ["fixed_threads"]

NOTEBOOK = PROJECT_ROOT / "examples" / "train_on_preferences.ipynb"
SMALL = "\nnum_pairs, num_steps = 8, 2"


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Run a cell; give the value of its last line if that is an expression, which is what a notebook shows."""
    tree = ast.parse(source)
    last = tree.body[-1]
    if not isinstance(last, ast.Expr):
        exec(compile(tree, NOTEBOOK.name, "exec"), names)
        return None
    exec(compile(ast.Module(tree.body[:-1], []), NOTEBOOK.name, "exec"), names)
    return eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names)


@pytest.fixture(autouse=True)
def no_objective_is_left() -> Iterator[None]:
    yield
    if "hinge" in losses.OBJECTIVES:
        losses.unregister("hinge")


def test_the_notebook_runs_and_shows_images_before_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMPO_ROUND__RANK", "no number")
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in cells)
    names: dict[str, Any] = {}
    shown = []
    for cell in cells:
        small = SMALL if "parameters" in cell["metadata"].get("tags", []) else ""
        shown.append(run_cell("".join(cell["source"]) + small, names))
    strips = [np.asarray(value) for value in shown if isinstance(value, Image.Image)]
    assert [strip.shape for strip in strips] == [(192, 384, 3), (192, 576, 3), (192, 384, 3)]
    assert any(not np.array_equal(strip[:, :192], strip[:, -192:]) for strip in strips[1:])
    assert names["result"].adapter_path.is_dir()
    assert names["own"].objective == "hinge"
    assert len(names["margins"]) == 2
    assert "before" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []

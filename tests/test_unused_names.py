"""The linter that finds names nothing uses: scripts/unused_names.py."""

import ast
import re
from pathlib import Path

import pytest

from scripts import unused_names

FILES = {
    "pyproject.toml": '[project.scripts]\nrun = "dmpo_app.used:main"\n',
    "app.py": "from dmpo_app.used import used\nused()\n",
    "dmpo_app/used.py": """
import logging
_log = logging.getLogger(__name__)
_LIMIT = 3
_ROW = "a row"
class Kept: ...
def used() -> "Kept": return _LIMIT
def main(): ...
def only_tested(): return only_tested()
""",
    "dmpo_app/other.py": "from dmpo_app import used\n_ROW = 1\nclass Other: row = _ROW\nused.used()\n",
    "tests/test_used.py": "from dmpo_app.used import only_tested\nfrom dmpo_app.other import Other\nOther()\n",
}


def test_private_names_unused_in_their_module_and_public_ones_only_tests_use_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(unused_names, "ROOT", tmp_path)
    assert unused_names.main() == 1
    lines = [line.split(": ")[1].split()[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["Other", "_log", "_ROW", "only_tested"]


IMPORT_IN_TEXT = re.compile(r"\bfrom ((?:dmpo_app|tests|benchmarks)[\w.]*) import (\w+(?:, \w+)*)")


def test_what_code_in_a_string_imports_is_there() -> None:
    """Programs that tests hand to another Python are text, which no type checker reads."""
    missing = []
    for path in unused_names.paths_of(("tests", "benchmarks", "examples", "scripts")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and path.name != Path(__file__).name:
                for module, names in IMPORT_IN_TEXT.findall(node.value):
                    missing += [(path.name, module, name) for name in names.split(", ") if not has_name(module, name)]
    assert missing == []


def has_name(module: str, name: str) -> bool:
    """True where `from module import name` finds something, from the files alone."""
    path = unused_names.ROOT / module.replace(".", "/")
    if (path / f"{name}.py").exists() or (path / name).is_dir():
        return True
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file.exists() and re.search(rf"\b{name}\b", file.read_text()) is not None

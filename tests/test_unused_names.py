"""The linter that finds names nothing uses: scripts/unused_names.py."""

from __future__ import annotations

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


def test_this_project_has_none() -> None:
    assert list(unused_names.problems()) == []

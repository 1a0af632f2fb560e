"""`make test` in phases: one that fails is reported and does not keep the later ones from running."""

import shutil
import subprocess
from pathlib import Path

import pytest

from dmpo_app.settings import PROJECT_ROOT

STAND_IN = """#!/bin/sh
echo "pytest $* database=$DMPO_TEST_DATABASE" >> ran
case "$* $DMPO_TEST_DATABASE" in *"{failing}"*) exit 3 ;; esac
"""
"""In the place of the environment's Python: notes its arguments, and fails in the phase that has `failing` in them."""


def run_phases(folder: Path, failing: str) -> tuple[int, str, list[str]]:
    """The exit code of scripts/test.sh, the last lines that it wrote, the pytest commands it ran."""
    (folder / "scripts").mkdir()
    shutil.copy(PROJECT_ROOT / "scripts" / "test.sh", folder / "scripts")
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STAND_IN.format(failing=failing))
    python.chmod(0o755)
    finished = subprocess.run([folder / "scripts" / "test.sh"], capture_output=True, text=True, check=False)
    return finished.returncode, finished.stdout, (folder / "ran").read_text().splitlines()


@pytest.mark.parametrize(("failing", "phase"), [("2 tests ", "all tests"), ("postgresql", "PostgreSQL")])
def test_a_phase_that_fails_is_reported_and_the_others_run(tmp_path: Path, failing: str, phase: str) -> None:
    code, output, commands = run_phases(tmp_path, failing)
    assert code == 1
    assert len(commands) == 2
    report = output.splitlines()[-2:]
    assert [line.startswith("FAILED (3)") for line in report] == [phase in line for line in report]
    assert sum(line.startswith("passed") for line in report) == 1


def test_when_every_phase_passes_so_does_the_whole(tmp_path: Path) -> None:
    code, _, commands = run_phases(tmp_path, failing="nothing")
    assert code == 0
    assert commands[0].partition(" database=")[0].endswith(" tests"), "every test is in the first one"

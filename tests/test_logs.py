"""Log lines as text and as JSON, from the settings to the last byte."""

import json
import logging
import subprocess
import sys
from pathlib import Path

from dmpo_app.io.logs import formatter_for
from tests.studio_process import PROJECT_ROOT

RECORD = logging.LogRecord("dmpo_app.store", logging.WARNING, "x.py", 1, "%d votes, %s", (3, "né\n{}"), None)


def test_text_is_as_the_caller_wants_it() -> None:
    assert formatter_for("text", "%(levelname)s %(message)s").format(RECORD) == "WARNING 3 votes, né\n{}"


def test_json_is_one_line_with_names_that_do_not_change() -> None:
    line = formatter_for("json", "").format(RECORD)
    assert "\n" not in line
    parsed = json.loads(line)
    assert set(parsed) == {"time", "level", "logger", "message", "process"}
    assert (parsed["level"], parsed["logger"], parsed["message"]) == ("WARNING", "dmpo_app.store", "3 votes, né\n{}")


def test_an_exception_is_one_field() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "it failed", (), sys.exc_info())
    line = formatter_for("json", "").format(record)
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("ValueError: broken")


def test_lines_of_libraries_and_warnings_are_objects_too() -> None:
    code = (
        "import logging, warnings; from dmpo_app.io.logs import log_json_to_stderr as work; "
        "other = logging.getLogger('uvicorn.error'); other.addHandler(logging.StreamHandler()); "
        "other.propagate = False; "
        "work(); other.error('from elsewhere'); warnings.warn('old'); logging.getLogger('dmpo_app').warning('ours')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT_ROOT)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["logger"] for line in lines] == ["uvicorn.error", "py.warnings", "dmpo_app"]


def test_the_trainers_file_has_the_format_too(tmp_path: Path) -> None:
    code = (
        "import logging; from dmpo_app.settings import Settings; "
        "from dmpo_app.training.process import trainer_process; "
        f"trainer_process._open_log(Settings(home={str(tmp_path)!r}, log_format='json')); "
        "logging.getLogger('dmpo_app.training').info('step %d', 3)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT_ROOT)
    [line] = (tmp_path / "trainer.log").read_text().splitlines()
    assert json.loads(line)["message"] == "step 3"


def test_a_command_logs_as_the_settings_say(tmp_path: Path) -> None:
    (tmp_path / "dmpo.toml").write_text('log_format = "json"\n')
    code = (
        "import logging, typer; from typer.testing import CliRunner; from dmpo_app.cli import terminal\n"
        "app = terminal.StudioTyper(help='x')\n"
        "@app.command()\n"
        "def one(context: terminal.StudioContext) -> None:\n"
        "    terminal.log_to_terminal(logging.INFO); context.load_settings()\n"
        "    logging.getLogger('dmpo_app.x').info('said')\n"
        "@app.command()\n"
        "def two() -> None: ...\n"
        "app(['one'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={"PYTHONPATH": str(PROJECT_ROOT), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert [json.loads(line)["message"] for line in done.stderr.splitlines()] == ["said"], done.stderr

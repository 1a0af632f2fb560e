"""The trainer as a real process: killed, stopped, orphaned, and unable to start."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from dmpo_app.domain.lineage import RoundState, RoundStatus
from dmpo_app.settings import PROJECT_ROOT, Settings, TrainerSettings
from dmpo_app.training.process.supervisor import EXIT_PASSING, EXIT_SETUP
from dmpo_app.training.process.trainer_process import TrainerProcess
from tests.patience import wait_until
from tests.training.training_studio import FAST, TrainingStudio

TOKEN = "an-administrators-token-that-nobody-else-may-see"


@pytest.fixture
def settings(studio: TrainingStudio) -> Settings:
    return Settings(
        home=studio.home,
        base_model=str(studio.source),
        min_votes=8,
        admin_token=SecretStr(TOKEN),
        round=FAST.model_copy(update={"num_steps": 30, "evaluate_every": 10, "slice_seconds": 0.2}),
        trainer=TrainerSettings(poll_seconds=0.05, num_threads=1, nice=1),
    )


@pytest.fixture
def trainer(settings: Settings) -> Iterator[TrainerProcess]:
    trainer = TrainerProcess(settings)
    trainer.start()
    yield trainer
    trainer.stop()


def current_round(studio: TrainingStudio) -> RoundState | None:
    return studio.store.rounds.current(studio.base)


def test_sigterm_amid_a_round_ends_it_cleanly_and_the_next_trainer_finishes_the_round(
    studio: TrainingStudio, settings: Settings, trainer: TrainerProcess
) -> None:
    studio.add_pairs(8)
    studio.vote(8)
    wait_until(lambda: (state := current_round(studio)) is not None and state.step > 0, "a round has done a step")
    pid = trainer.state.pid
    assert pid is not None
    niceness = psutil.Process(pid).nice()
    trainer.stop()
    assert not psutil.pid_exists(pid)
    assert niceness == min(19, psutil.Process().nice() + settings.trainer.nice)
    stopped = current_round(studio)
    assert stopped is not None
    assert stopped.status is RoundStatus.RUNNING
    log = (studio.home / "trainer.log").read_text()
    assert "stopped" in log
    assert TOKEN not in log
    successor = TrainerProcess(settings)
    successor.start()
    try:
        wait_until(lambda: current_round(studio) is None, "the successor has finished the round")
    finally:
        successor.stop()
    assert studio.store.rounds.get(stopped.id).status is RoundStatus.PUBLISHED


PARENT = """
import sys, time
from dmpo_app.settings import Settings
from dmpo_app.training.process.trainer_process import TrainerProcess
trainer = TrainerProcess(Settings.model_validate_json(sys.argv[1]))
trainer.start()
while trainer.state.pid is None:
    time.sleep(0.01)
print(trainer.state.pid, flush=True)
time.sleep(1000)
"""


def test_the_trainer_ends_when_its_parent_is_killed(settings: Settings) -> None:
    command = [sys.executable, "-c", PARENT, settings.model_copy(update={"admin_token": None}).model_dump_json()]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), "DMPO_ADMIN_TOKEN": TOKEN}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        child = psutil.Process(pid)
        given = " ".join([*child.cmdline(), *child.environ().values()])
        parent.kill()
    assert TOKEN not in given
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the trainer has ended")


def test_a_base_model_that_cannot_be_loaded_is_given_up_with_its_reason(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmpo_app.training.process.supervisor.MAX_QUICK_EXITS", 1)
    trainer = TrainerProcess(settings.model_copy(update={"base_model": str(tmp_path / "nowhere")}))
    trainer.start()
    wait_until(lambda: trainer.state.message != "", "the reason is said")
    wait_until(lambda: not trainer.state.running, "the trainer has ended")
    assert "nowhere does not exist" in trainer.state.message
    assert trainer.state.restarts == 0
    trainer.stop()


def test_a_base_model_that_is_out_of_reach_for_now_is_tried_again_however_often(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmpo_app.training.process.supervisor.MAX_QUICK_EXITS", 1)
    monkeypatch.setattr("dmpo_app.training.process.supervisor._FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("dmpo_app.training.process.supervisor._LONGEST_PAUSE_SECONDS", 0.1)
    ends = f"import sys; sys.stderr.write('the hub is out of reach\\n'); sys.exit({EXIT_PASSING})"
    trainer = TrainerProcess(settings, command=(sys.executable, "-c", ends))
    trainer.start()
    wait_until(lambda: trainer.state.restarts >= 3, "it is tried a fourth time")
    trainer._quick_exits = 5_000  # as after some hours: no pause is longer than the longest
    restarts = trainer.state.restarts
    wait_until(lambda: trainer.state.restarts >= restarts + 2, "it is tried on")
    assert trainer.state.message == "the hub is out of reach; it is started again"
    trainer.stop()


UNFIT = """
import io, os, sys
from dmpo_app.settings import Settings
from dmpo_app.training.process.trainer_process import main
sys.stdin = io.StringIO(Settings(home=sys.argv[1], base_model=sys.argv[2]).model_dump_json() + "\\n")
print(main(["--parent-pid", str(os.getppid()), "--owner", "somebody"]), "torch" in sys.modules)
"""


OUT_OF_REACH = UNFIT.replace(
    "print(",
    """
import errno
import dmpo_app.diffusion.base_models as base_models
from dmpo_app.errors import ModelUnavailableError
def fails(source):
    raise ModelUnavailableError(f"{source} cannot be had now") from OSError(errno.ENETUNREACH, "unreachable")
base_models.detect_family = fails
print(""",
)


def test_a_base_model_that_is_out_of_reach_for_now_ends_the_trainer_with_a_status_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OUT_OF_REACH, str(tmp_path / "home"), "somebody/model"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.split()[-2] == str(EXIT_PASSING)
    assert "somebody/model cannot be had now" in told.stderr


def test_an_unfit_base_model_is_told_before_the_slow_imports(tmp_path: Path) -> None:
    command = [sys.executable, "-c", UNFIT, str(tmp_path / "home"), str(tmp_path / "nowhere")]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.split()[-2:] == [str(EXIT_SETUP), "False"]  # after heartbeats
    assert "nowhere does not exist" in told.stderr


def stand_in(code: str) -> tuple[str, ...]:
    """A trainer process made of a few lines, to try its supervisor with."""
    return (sys.executable, "-c", code)


def test_a_trainer_that_ends_by_itself_is_started_again_and_given_up_in_the_end(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmpo_app.training.process.supervisor._FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("dmpo_app.training.process.supervisor.MAX_QUICK_EXITS", 3)
    trainer = TrainerProcess(settings, command=stand_in("import sys; sys.stderr.write('first\\nlast\\n'); sys.exit(3)"))
    trainer.start()
    wait_until(lambda: trainer.state.message.startswith("no more training"), "the supervisor gives up")
    assert "ended with status 3 (last)" in trainer.state.message
    assert trainer.state.restarts == 2
    trainer.stop()


def test_a_trainer_that_cannot_be_started_for_now_is_started_once_it_can(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmpo_app.training.process.supervisor._FIRST_PAUSE_SECONDS", 0.01)
    failures = [OSError(errno.EMFILE, "Too many open files"), RuntimeError("can't start new thread")]
    start = subprocess.Popen

    def start_or_fail(*arguments: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return start(*arguments, **options)

    monkeypatch.setattr("dmpo_app.training.process.supervisor.subprocess.Popen", start_or_fail)
    trainer = TrainerProcess(settings, command=stand_in("import time; print('ready', flush=True); time.sleep(600)"))
    trainer.start()
    wait_until(lambda: trainer.state.running and not trainer.state.message, "it runs")
    assert trainer.state.restarts == 2
    trainer.stop()


def test_a_trainer_that_is_killed_is_never_given_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmpo_app.training.process.supervisor._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("dmpo_app.training.process.supervisor.MAX_QUICK_EXITS", 2)
    trainer = TrainerProcess(
        settings, command=stand_in("import os; print('ready', flush=True); os.kill(os.getpid(), 9)")
    )
    trainer.start()
    wait_until(lambda: trainer.state.restarts >= 4, "there were several restarts")
    trainer.stop()
    assert not trainer.state.running


def test_the_message_is_gone_once_the_next_trainer_is_ready(settings: Settings, tmp_path: Path) -> None:
    marker = tmp_path / "second"
    code = (
        "import pathlib, sys, time\n"
        f"marker = pathlib.Path({str(marker)!r})\n"
        "if not marker.exists():\n    marker.touch()\n    sys.exit(1)\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    trainer = TrainerProcess(settings, command=stand_in(code))
    trainer.start()
    wait_until(lambda: trainer.state.restarts == 1, "the trainer is restarted")
    wait_until(lambda: trainer.state.message == "" and trainer.state.running, "the trainer is well")
    trainer.stop()


def test_settings_arrive_as_they_were_without_the_administrators_token(settings: Settings, tmp_path: Path) -> None:
    received = tmp_path / "received.json"
    code = f"import sys; open({str(received)!r}, 'w').write(sys.stdin.readline()); print('ready', flush=True)"
    trainer = TrainerProcess(settings, command=stand_in(code))
    trainer.start()
    wait_until(lambda: received.exists() and received.read_text().endswith("\n"), "the settings have arrived")
    trainer.stop()
    text = received.read_text()
    assert TOKEN not in text
    assert Settings.model_validate_json(text) == settings.model_copy(update={"admin_token": None})

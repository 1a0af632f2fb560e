"""A trainer that is frozen, hangs or gets no further is told, ended and started again; so it ends with its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dmpo_app.domain.lineage import RoundStatus
from dmpo_app.settings import PROJECT_ROOT, Settings, TrainerSettings
from dmpo_app.training.process.supervisor import TrainerProcess
from dmpo_app.training.rounds.scheduler import Tick
from tests.patience import wait_until
from tests.training.hanging_objective import NAME, VARIABLE
from tests.training.scheduler_fixtures import MakeScheduler
from tests.training.training_studio import FAST, TrainingStudio

IS_SOAK = "DMPO_SOAK_KILLS" in os.environ
HELD = "call into C that holds the interpreter"
WAYS = ["deadlock", "call into C", "endless loop", HELD]
QUICK = TrainerSettings(poll_seconds=0.05, num_threads=1, nice=0, silent_seconds=2.0, stall_seconds=2.0)
STAND_IN = (sys.executable, "-m", "tests.training.stand_in_trainer")


@pytest.fixture(autouse=True)
def hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that makes trainers hang."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "hang"))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT_ROOT))
    return tmp_path / "hang"


def ask(hang: Path, way: str) -> None:
    hang.with_suffix(".new").write_text(way)
    hang.with_suffix(".new").rename(hang)


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[TrainerProcess]:
    trainer = TrainerProcess(Settings(home=tmp_path / "home", trainer=QUICK), command=STAND_IN)
    trainer.start()
    wait_until(lambda: trainer.state.phase == "training", "it trains")
    yield trainer
    trainer.stop()


def wait_until_well(trainer: TrainerProcess, restarts: int) -> None:
    wait_until(lambda: trainer.state.restarts == restarts, "it is started again")
    wait_until(lambda: trainer.state.running and not trainer.state.message, "it is well, and nothing else is said")


@pytest.mark.soak
@pytest.mark.skipif(not IS_SOAK, reason="those below hang in two of these ways; `make soak` runs it")
@pytest.mark.parametrize("way", WAYS)
def test_a_trainer_that_hangs_is_told_of_ended_and_started_again(
    stand_in: TrainerProcess, hang: Path, way: str
) -> None:
    pid = stand_in.state.pid
    assert pid is not None
    ask(hang, way)
    expected = "no sign of life" if way == HELD else "got no further"
    wait_until(lambda: expected in stand_in.state.message, "the hang is told")
    wait_until_well(stand_in, restarts=1)
    assert not psutil.pid_exists(pid)


def test_a_frozen_trainer_is_not_said_to_run_and_is_killed(stand_in: TrainerProcess) -> None:
    pid = stand_in.state.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: not stand_in.state.running, "it is not said to run")
    assert "no sign of life" in stand_in.state.message
    wait_until_well(stand_in, restarts=1)
    assert not psutil.pid_exists(pid), "SIGKILL alone ends a frozen process"
    pid = stand_in.state.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: not stand_in.state.running, "the next one is known to be frozen")
    began = time.monotonic()
    stand_in.stop()
    assert time.monotonic() - began < 15, "it costs the server's stop no half minute"
    assert not psutil.pid_exists(pid)


def test_a_long_phase_is_shown_and_is_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADING_SECONDS", "2.5")
    trainer = TrainerProcess(Settings(home=tmp_path / "home", trainer=QUICK), command=STAND_IN)
    trainer.start()
    wait_until(lambda: trainer.state.phase == "loading a model", "the phase is shown")
    assert trainer.state.running
    wait_until(lambda: trainer.state.phase == "training", "it is over")
    assert trainer.state.restarts == 0
    trainer.stop()


PARENT = """
import sys, time
from dmpo_app.settings import Settings
from dmpo_app.training.process.supervisor import TrainerProcess
trainer = TrainerProcess(Settings(home=sys.argv[1]), command=tuple(sys.argv[2:]))
trainer.start()
while trainer.state.phase != "training":
    time.sleep(0.01)
print(trainer.state.pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("way", [*WAYS, "frozen"] if IS_SOAK else [HELD, "frozen"])
def test_a_trainer_that_hangs_does_not_outlive_its_parent(tmp_path: Path, hang: Path, way: str) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "home"), *STAND_IN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT) as parent:
        assert parent.stdout is not None
        trainer = psutil.Process(int(parent.stdout.readline()))
        if way == "frozen":
            trainer.suspend()
            wait_until(lambda: trainer.status() == psutil.STATUS_STOPPED, "it is frozen")
        else:
            ask(hang, way)
            wait_until(lambda: not hang.exists(), "it hangs")
        parent.kill()
    began = time.monotonic()
    wait_until(lambda: not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE, "it has ended")
    assert time.monotonic() - began < 10


@pytest.fixture
def settings(studio: TrainingStudio) -> Settings:
    studio.add_pairs(8)
    studio.vote(8)
    return Settings(
        home=studio.home,
        base_model=str(studio.source),
        min_votes=8,
        round=FAST.model_copy(update={"num_steps": 100, "evaluate_every": 50, "slice_seconds": 0.5, "objective": NAME}),
        trainer=QUICK.model_copy(update={"silent_seconds": 10.0}),  # a real one is silent for a while where all is busy
    )


def run_with_trouble(studio: TrainingStudio, settings: Settings, trouble: Callable[[TrainerProcess], None]) -> str:
    """Run a round in whose first steps there is trouble; it must be published. Returns the stacks that were written."""
    trainer = TrainerProcess(settings)
    trainer.start()
    try:
        wait_until(lambda: (state := studio.store.rounds.current(studio.base)) and state.step > 0, "it has done a step")
        trouble(trainer)
        wait_until_well(trainer, restarts=1)
        wait_until(lambda: studio.store.rounds.current(studio.base) is None, "the round has ended")
    finally:
        trainer.stop()
    [state] = studio.store.rounds.list(studio.base)
    assert (state.status, state.attempts) == (RoundStatus.PUBLISHED, 2)
    return (studio.home / "trainer-stacks.log").read_text()


def test_a_round_whose_trainer_hangs_in_a_step_is_finished_from_its_checkpoint(
    studio: TrainingStudio, settings: Settings, hang: Path
) -> None:
    def deadlock(trainer: TrainerProcess) -> None:
        ask(hang, "deadlock")
        wait_until(lambda: "got no further" in trainer.state.message, "the hang is told")
        assert "(training)" in trainer.state.message

    assert "hanging_objective.py" in run_with_trouble(studio, settings, deadlock), "of the trainer that hung"


@pytest.mark.soak
@pytest.mark.skipif(not IS_SOAK, reason="as long as the one above; `make soak` runs it")
def test_a_round_whose_trainer_is_frozen_is_finished_from_its_checkpoint_and_takes_votes_meanwhile(
    studio: TrainingStudio, settings: Settings
) -> None:
    def freeze(trainer: TrainerProcess) -> None:
        pid = trainer.state.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        studio.add_pairs(1)
        studio.vote(1)

    run_with_trouble(studio, settings, freeze)


def test_a_round_that_hangs_its_trainer_again_and_again_is_given_up(
    studio: TrainingStudio, make_scheduler: MakeScheduler
) -> None:
    studio.add_pairs(8)
    studio.vote(8)

    def start(hang: str = "") -> Tick:
        """Start a trainer, which does one step and is then ended."""
        return make_scheduler(should_stop=iter([False, True, True]).__next__, hang=hang, max_attempts=2).tick()

    assert [start(), start("it hung"), start("it was frozen")] == [Tick.STOPPED, Tick.STOPPED, Tick.FAILED]
    state = studio.store.rounds.get(1)
    assert state.status is RoundStatus.FAILED
    assert state.reason == "the trainer hung 2 times in this round; the last time: it was frozen"


def test_a_hang_outside_of_rounds_is_no_attempt_of_the_next_one(
    studio: TrainingStudio, make_scheduler: MakeScheduler
) -> None:
    scheduler = make_scheduler(hang="it hung", max_attempts=1)
    assert scheduler.tick() is Tick.IDLE
    studio.add_pairs(8)
    studio.vote(8)
    assert scheduler.tick() is Tick.TRAINED

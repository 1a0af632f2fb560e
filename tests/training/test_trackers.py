"""Trackers get all that is recorded, and a broken one costs nothing."""

import importlib.util
from pathlib import Path

import pytest

from dmpo_app.errors import SetupError
from dmpo_app.training.process.trainer_process import check_tracker
from dmpo_app.training.rounds.round_progress import RoundTracker, start_round_tracker
from tests.training.training_studio import FAST


class Broken:
    """A tracker whose service is out of reach."""

    def __init__(self) -> None:
        self.calls = 0

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls += 1
        raise ConnectionError("no route to host")

    def finish(self) -> None:
        raise ConnectionError("no route to host")


def test_a_tracker_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match="pip install wandb"):
        check_tracker("wandb")
    check_tracker("none")


def test_a_tracker_that_breaks_is_let_go() -> None:
    broken = Broken()
    tracked = RoundTracker(broken)
    tracked({"loss": 1.0}, 1)
    tracked({"loss": 0.5}, 2)
    tracked.close()
    assert broken.calls == 1
    RoundTracker(broken).close()


def test_without_a_tracker_nothing_is_written(tmp_path: Path) -> None:
    tracked = start_round_tracker("none", tmp_path, 1, {})
    tracked({"loss": 1.0}, 1)
    tracked.close()
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_holds_the_recorded_values_at_the_recorded_steps(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracked = start_round_tracker("tensorboard", tmp_path, 3, FAST.model_dump(mode="json"))
    tracked({"loss": 0.75, "chosen_gain": -0.5}, 1)
    tracked.close()
    again = start_round_tracker("tensorboard", tmp_path, 3, FAST.model_dump(mode="json"))
    again({"loss": 0.5, "chosen_gain": 0.25}, 2)
    again.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tracking" / "round-3"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.75), (2, 0.5)]
    assert [(event.step, event.value) for event in events.Scalars("chosen_gain")] == [(1, -0.5), (2, 0.25)]

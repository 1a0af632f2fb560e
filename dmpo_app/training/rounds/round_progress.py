"""Progress of a round: reported to the store, and to TensorBoard, Trackio or Weights & Biases by choice.

Through accelerate's tracker classes, one run a round; a resumed round goes on in its run. The store's record is what
the studio itself shows, so a tracker that breaks is let go, and the round trains on.
"""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

from dmpo_app.domain.round import RoundProgress
from dmpo_app.errors import Busy, SetupProblem
from dmpo_app.store import Store
from dmpo_app.training.loop.step import Agreement, StepResult
from dmpo_app.training.monitoring.health import PairHealth

TrackerName = Literal["none", "tensorboard", "trackio", "wandb"]

PROJECT = "dmpo-studio"
_PACKAGES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"none": (), "tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",), "wandb": ("wandb",)}
)
_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """What is used of accelerate's trackers."""

    def log(self, values: dict[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


def check_tracker(name: TrackerName) -> None:
    """Raise SetupProblem unless one of the packages that the tracker needs is installed."""
    packages = _PACKAGES[name]
    if packages and not any(importlib.util.find_spec(package) for package in packages):
        raise SetupProblem(
            f"the tracker {name!r} needs a package that is not installed; `pip install {packages[0]}`, or set "
            "DMPO_TRAINER__TRACKER=none"
        )


class TrackedRound:
    """One round's run; a `progress.Track`. `tracker` None: nothing is tracked."""

    def __init__(self, tracker: Tracker | None) -> None:
        self._tracker = tracker

    def __call__(self, values: Mapping[str, float], step: int) -> None:
        """Log what was recorded. The first error is logged and ends the tracking of this round, not the round."""
        if self._tracker is None:
            return
        try:
            self._tracker.log(dict(values), step=step)
        except Exception:  # noqa: BLE001 - a service out of reach must not cost a round
            _log.exception("the tracker broke; the round goes on without it")
            self._tracker = None

    def close(self) -> None:
        """End the run."""
        tracker, self._tracker = self._tracker, None
        if tracker is None:
            return
        try:
            tracker.finish()
        except Exception:  # noqa: BLE001
            _log.exception("the tracker broke when its run was ended")


def tracked_round(name: TrackerName, home: Path, round_id: int, config: Mapping[str, Any]) -> TrackedRound:
    """A round's run, begun or gone on with. TensorBoard's files are in `tracking` in the home."""
    if name == "none":
        return TrackedRound(None)
    try:
        tracker = _begun(name, home / "tracking", f"round-{round_id}", _flat(config))
    except Exception:  # noqa: BLE001
        _log.exception("the tracker %s cannot be used for round %d", name, round_id)
        return TrackedRound(None)
    return TrackedRound(tracker)


def _begun(name: TrackerName, folder: Path, run: str, config: dict[str, Any]) -> Tracker:
    from accelerate.tracking import TensorBoardTracker, TrackioTracker, WandBTracker

    tracker: Any
    if name == "tensorboard":
        tracker = TensorBoardTracker(run, logging_dir=folder)
        is_new = not (folder / run).exists()
    else:
        folder.mkdir(parents=True, exist_ok=True)
        place = {"dir": str(folder), "id": f"{PROJECT}-{run}"} if name == "wandb" else {}
        kind = WandBTracker if name == "wandb" else TrackioTracker
        tracker = kind(PROJECT, name=run, resume="allow", **place)
        is_new = True
    tracker.start()
    if is_new:  # TensorBoard would write them as a run of its own each time
        tracker.store_init_configuration(config)
    begun: Tracker = tracker
    return begun


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under names with dots; what is neither number nor text becomes text."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat


MIN_SECONDS_BETWEEN = 0.3

Track = Callable[[Mapping[str, float], int], None]
"""Takes what is recorded, by name, and its step."""


def not_tracked(values: Mapping[str, float], step: int) -> None:
    """The usual Track: what is recorded goes to the store alone."""


def values_of(progress: RoundProgress) -> dict[str, float]:
    """What a record says, by name."""
    values = {"loss": progress.loss, "margin": progress.margin, "accuracy": progress.accuracy, **progress.health}
    return values if progress.held_out_loss is None else {**values, "held_out_loss": progress.held_out_loss}


class ProgressReport:
    """Averages the steps since the last record, so that a point of the curve is not one noisy batch."""

    def __init__(
        self,
        store: Store,
        round_id: int,
        *,
        first_step: int,
        steps: int,
        token: int,
        clock: Callable[[], float],
        track: Track = not_tracked,
    ) -> None:
        self._store = store
        self._round_id = round_id
        self._first_step = first_step
        self._steps = steps
        self._token = token
        self._clock = clock
        self._track = track
        self._started = clock()
        self._recorded_at = float("-inf")
        self._clear()

    def add(
        self,
        step: int,
        result: StepResult,
        *,
        held_out_loss: float | None = None,
        drift: Mapping[str, float] = MappingProxyType({}),
        last: bool = False,
    ) -> None:
        """Count a finished step, counted from 1; record when it is time, and always what a look saw and the end."""
        self._losses.append(result.loss)
        self._grad_norms.append(result.grad_norm)
        self._agreement += result.agreement
        self._pairs += result.pairs
        is_time = self._clock() - self._recorded_at >= MIN_SECONDS_BETWEEN
        if not (is_time or held_out_loss is not None or drift or last or step == self._steps):
            return
        seconds_per_step = (self._clock() - self._started) / (step - self._first_step)
        progress = RoundProgress(
            step=step,
            loss=sum(self._losses) / len(self._losses),
            margin=self._agreement.margin,
            accuracy=self._agreement.accuracy,
            eta_seconds=seconds_per_step * (self._steps - step),
            held_out_loss=held_out_loss,
            health=self._health(result, drift),
        )
        try:
            self._store.rounds.record(self._round_id, progress, token=self._token)
        except Busy:
            return  # the page misses one point; the next record carries these steps too
        self._track(values_of(progress), step)
        self._recorded_at = self._clock()
        self._clear()

    def _health(self, result: StepResult, drift: Mapping[str, float]) -> dict[str, float]:
        values = {
            "chosen_gain": self._pairs.chosen_gain,
            "rejected_gain": self._pairs.rejected_gain,
            "past_target": self._pairs.past_target,
            "grad_norm": sum(self._grad_norms) / len(self._grad_norms),
            "adapter_norm": result.adapter_norm,
            "adapter_rms": result.adapter_rms,
            **drift,
        }
        return {name: value for name, value in values.items() if math.isfinite(value)}  # JSON has no NaN

    def _clear(self) -> None:
        self._losses: list[float] = []
        self._grad_norms: list[float] = []
        self._pairs = PairHealth()
        self._agreement = Agreement()

"""Progress of a round: reported to the store, and to TensorBoard, Trackio or Weights & Biases by choice.

Through accelerate's tracker classes, one run a round; a resumed round goes on in its run. The store's record is what
the studio itself shows, so a tracker that breaks is let go, and the round trains on.
"""

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from dmpo_app.domain.lineage import RoundProgress
from dmpo_app.errors import BusyError
from dmpo_app.store import Store
from dmpo_app.training.loop.steps import StepDone
from dmpo_app.training.monitoring.early_stopping import PairHealth, StepResult, VoteAgreement

TrackerName = Literal["none", "tensorboard", "trackio", "wandb"]

PROJECT = "dmpo-studio"
_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Protocol of a tracker, the used part of accelerate's."""

    def log(self, values: dict[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


class RoundTracker:
    """The tracker of one round, which is one run; a callback of `progress`. `tracker` None: nothing is tracked."""

    def __init__(self, tracker: Tracker | None) -> None:
        self._tracker = tracker

    def __call__(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics. The first error is logged and ends the tracking of this round, not the round."""
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


def start_round_tracker(name: TrackerName, home: Path, round_id: int, config: Mapping[str, Any]) -> RoundTracker:
    """Start or resume a round's run in the tracker. TensorBoard's files are in `tracking` in the home."""
    if name == "none":
        return RoundTracker(None)
    try:
        tracker = _start_tracker(name, home / "tracking", f"round-{round_id}", _flat(config))
    except Exception:  # noqa: BLE001
        _log.exception("the tracker %s cannot be used for round %d", name, round_id)
        return RoundTracker(None)
    return RoundTracker(tracker)


def _start_tracker(name: TrackerName, folder: Path, run: str, config: dict[str, Any]) -> Tracker:
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
    started_tracker: Tracker = tracker
    return started_tracker


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to names with dots; values that are neither number nor text become text."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat


MIN_SECONDS_BETWEEN = 0.3

MetricsCallback = Callable[[Mapping[str, float], int], None]
"""Callback for recorded metrics, by name, and their step."""


def ignore_metrics(values: Mapping[str, float], step: int) -> None:
    """The default callback: metrics go to the store alone."""


def metrics_from_progress(progress: RoundProgress) -> dict[str, float]:
    """The metrics of a progress record, by name."""
    values = {"loss": progress.loss, "margin": progress.margin, "accuracy": progress.accuracy, **progress.health}
    return values if progress.held_out_loss is None else {**values, "held_out_loss": progress.held_out_loss}


class ProgressRecorder:
    """Recorder of a round's progress; averages the steps since the last record, against the noise of one batch."""

    def __init__(
        self,
        store: Store,
        round_id: int,
        *,
        first_step: int,
        token: int,
        clock: Callable[[], float],
        track: MetricsCallback = ignore_metrics,
    ) -> None:
        self._store = store
        self._round_id = round_id
        self._first_step = first_step
        self._token = token
        self._clock = clock
        self._track = track
        self._started_at = clock()
        self._recorded_at = float("-inf")
        self._reset()

    def add(self, step_done: StepDone) -> None:
        """Add a finished step; record when it is due, and always evaluations and the last step."""
        step, result, held_out_loss = step_done.step, step_done.result, step_done.held_out_loss
        self._losses.append(result.loss)
        self._grad_norms.append(result.grad_norm)
        self._agreement += result.agreement
        self._pairs += result.pairs
        is_time = self._clock() - self._recorded_at >= MIN_SECONDS_BETWEEN
        if not (is_time or held_out_loss is not None or step_done.drift or step_done.is_last):
            return
        seconds_per_step = (self._clock() - self._started_at) / (step - self._first_step)
        progress = RoundProgress(
            step=step,
            loss=sum(self._losses) / len(self._losses),
            margin=self._agreement.margin,
            accuracy=self._agreement.accuracy,
            eta_seconds=seconds_per_step * (step_done.num_steps - step),
            held_out_loss=held_out_loss,
            health=self._health(result, step_done),
        )
        try:
            self._store.rounds.record(self._round_id, progress, token=self._token)
        except BusyError:
            return  # the page misses one point; the next record carries these steps too
        self._track(metrics_from_progress(progress), step)
        self._recorded_at = self._clock()
        self._reset()

    def _health(self, result: StepResult, step_done: StepDone) -> dict[str, float]:
        values = {
            "chosen_gain": self._pairs.chosen_gain,
            "rejected_gain": self._pairs.rejected_gain,
            "past_target": self._pairs.past_target,
            "grad_norm": sum(self._grad_norms) / len(self._grad_norms),
            "adapter_norm": result.adapter_norm,
            "adapter_rms": result.adapter_rms,
            **step_done.drift,
        }
        if step_done.evaluation is not None:
            values["held_out_probability"] = step_done.evaluation.voted_probability
        return {name: value for name, value in values.items() if math.isfinite(value)}  # JSON has no NaN

    def _reset(self) -> None:
        self._losses: list[float] = []
        self._grad_norms: list[float] = []
        self._pairs = PairHealth()
        self._agreement = VoteAgreement()

"""Trackers by choice: what is recorded of a round goes to TensorBoard, Trackio or Weights & Biases as well.

Through accelerate's tracker classes, one run a round; a resumed round goes on in its run. The store's record is what
the studio itself shows, so a tracker that breaks is let go, and the round trains on.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

from dmpo_app.errors import SetupProblem

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

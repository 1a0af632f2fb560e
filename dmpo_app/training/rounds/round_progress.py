"""A round's progress, written to the store as it happens but not more often than anybody looks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from dmpo_app.domain.round import RoundProgress
from dmpo_app.errors import Busy
from dmpo_app.store import Store
from dmpo_app.training.loop.step import Agreement, StepResult
from dmpo_app.training.monitoring.health import PairHealth

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

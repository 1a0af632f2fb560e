"""A round's progress, written to the store as it happens but not more often than anybody looks."""

from __future__ import annotations

from collections.abc import Callable

from dmpo_app.domain import RoundProgress
from dmpo_app.errors import Busy
from dmpo_app.store import Store
from dmpo_app.training.step import Agreement, StepResult

MIN_SECONDS_BETWEEN = 0.3


class ProgressReport:
    """Averages the steps since the last record, so that a point of the curve is not one noisy batch."""

    def __init__(
        self, store: Store, round_id: int, *, first_step: int, steps: int, token: int, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._round_id = round_id
        self._first_step = first_step
        self._steps = steps
        self._token = token
        self._clock = clock
        self._started = clock()
        self._recorded_at = float("-inf")
        self._clear()

    def add(self, step: int, result: StepResult, *, held_out_loss: float | None = None) -> None:
        """Count a finished step, counted from 1; record when it is time, and always what was held out and the end."""
        self._losses.append(result.loss)
        self._agreement += result.agreement
        is_time = self._clock() - self._recorded_at >= MIN_SECONDS_BETWEEN
        if not (is_time or held_out_loss is not None or step == self._steps):
            return
        seconds_per_step = (self._clock() - self._started) / (step - self._first_step)
        progress = RoundProgress(
            step=step,
            loss=sum(self._losses) / len(self._losses),
            margin=self._agreement.margin,
            accuracy=self._agreement.accuracy,
            eta_seconds=seconds_per_step * (self._steps - step),
            held_out_loss=held_out_loss,
        )
        try:
            self._store.rounds.record(self._round_id, progress, token=self._token)
        except Busy:
            return  # the page misses one point; the next record carries these steps too
        self._recorded_at = self._clock()
        self._clear()

    def _clear(self) -> None:
        self._losses: list[float] = []
        self._agreement = Agreement()

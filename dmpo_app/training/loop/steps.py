"""The training loop: train a step, evaluate when due, stop early, report, checkpoint when due.

Rounds on votes, slices on ZeroGPU, data sets and every process of a torchrun go through this one loop. They differ in
where a checkpoint goes, how long they may take, and what they do with a finished step.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from dmpo_app.training.loop.checkpoint import Checkpoint
from dmpo_app.training.loop.trainer import RoundTrainer
from dmpo_app.training.monitoring.early_stopping import StepResult
from dmpo_app.training.monitoring.evaluation import Evaluation


@dataclass(frozen=True, slots=True)
class StepDone:
    """A finished training step, number `step` of `num_steps` counted from 1, and what was measured after it.

    `evaluation` on held-out pairs and `drift` of images are None and empty where none was due. `is_last` is True after
    the last step and after one that exceeds a limit.
    """

    step: int
    num_steps: int
    result: StepResult
    evaluation: Evaluation | None
    drift: Mapping[str, float]
    is_last: bool

    @property
    def held_out_loss(self) -> float | None:
        return self.evaluation.loss if self.evaluation else None


class _Turn(StrEnum):
    TRAIN = "train"
    CHECKPOINT = "checkpoint"
    END = "end"


def steps(
    trainer: RoundTrainer,
    *,
    save: Callable[[Checkpoint], None],
    checkpoint_seconds: float = math.inf,
    budget_seconds: float = math.inf,
    should_stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    started_at: float | None = None,
) -> Iterator[StepDone]:
    """Train step by step, and yield each step when it is done.

        for step in steps(trainer, save=save, budget_seconds=30):
            print(step.step, step.result.loss, step.held_out_loss)

    Ends after the last step, when a limit is exceeded (early stopping), when `should_stop` says so, which is called
    before every step and may raise, or when the time since `started_at` (now, if None) is over; any budget is enough
    for one step. `save` gets a checkpoint every `checkpoint_seconds`, between two steps, and always at the end, however
    that came: afterwards `trainer.is_done` tells a round that is over from one that goes on later. Closed early, it
    leaves the checkpoint that there is.

    Of several processes in the trainer's group all call it; the main one's clock and `should_stop` decide for all, and
    its `save` alone is called. Raises RoundFailedError when training diverges or does not fit into memory,
    PeerLostError, and whatever `save` raises.
    """
    group, first_step = trainer.group, trainer.step
    slice_start = saved_at = clock() if started_at is None else started_at

    def next_turn() -> _Turn:
        has_trained, now = trainer.step > first_step, clock()
        if has_trained and now - slice_start >= budget_seconds:
            return _Turn.END
        if should_stop():
            return _Turn.END
        return _Turn.CHECKPOINT if has_trained and now - saved_at >= checkpoint_seconds else _Turn.TRAIN

    def save_checkpoint() -> float:
        trainer.seconds += clock() - saved_at
        checkpoint = trainer.checkpoint()
        group.broadcast(lambda: save(checkpoint))
        return clock()

    while not trainer.is_done:
        turn = group.broadcast(next_turn)
        if turn == _Turn.END:
            break
        if turn == _Turn.CHECKPOINT:
            saved_at = save_checkpoint()
        yield _train_one(trainer)
    save_checkpoint()


def _train_one(trainer: RoundTrainer) -> StepDone:
    result = trainer.train_step()
    drift = trainer.measure_drift_if_due()  # before the evaluation: an adapter beyond a limit does not become the best
    evaluation = trainer.evaluate_if_due()
    return StepDone(trainer.step, trainer.num_steps, result, evaluation, dict(drift), trainer.is_done)

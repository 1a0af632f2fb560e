"""Training loop of the stages: learning rate, progress lines and times to save."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportIntervals:
    """Intervals at which a stage logs and saves. `now` is a clock in seconds."""

    print_every: int = 50  # steps
    save_seconds: float = 120.0
    now: Callable[[], float] = time.monotonic


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up to `peak`, then a cosine down to a hundredth of it."""
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def training_steps(
    name: str,
    start: int,
    steps: int,
    intervals: ReportIntervals,
    mean_loss: Callable[[], float],
    save: Callable[[int], None],
) -> Iterator[int]:
    """Yield steps from `start` to `steps`; logs and saves in between and at the end.

    `save(n)` is called with the number of finished steps.
    """
    started_at = last_save = intervals.now()
    for step in range(start, steps):
        yield step
        done = step + 1
        if done % intervals.print_every == 0 or done == steps:
            pace = (done - start) / max(1e-9, intervals.now() - started_at)
            logger.info(
                f"{name}: step {done}/{steps}  loss {mean_loss():.4f}  {pace:.2f} steps/s  "
                f"eta {(steps - done) / pace / 60:.1f} min"
            )
        if intervals.now() - last_save > intervals.save_seconds or done == steps:
            save(done)
            last_save = intervals.now()

"""Script of each process in the tests of several processes: `python -m tests.training.two_processes <what> ...`."""

import os
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from dmpo_app.errors import PeerLostError
from dmpo_app.training.distributed.process_group import ProcessGroup, join_process_group
from tests.model_fixtures import NUM_THREADS

PATIENCE = timedelta(seconds=60)
IMPATIENCE = timedelta(seconds=6)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def agree(group: ProcessGroup) -> None:
    """Results, then memory that runs out in process 1, then a failure of process 1, told without anybody waiting."""
    say(
        f"processes {group.world_size}, results {group.all_gather(lambda: [group.process_rank, 0.1])}, "
        f"led {group.broadcast(lambda: 7)}"
    )

    def fails(error: Exception) -> None:
        if group.process_rank == 1:
            raise error

    for error in (torch.OutOfMemoryError("CUDA out of memory"), ValueError("no such thing")):
        try:
            group.all_gather(lambda error=error: fails(error))  # type: ignore[misc]
        except (torch.OutOfMemoryError, PeerLostError, ValueError) as caught:
            say(f"{type(caught).__name__}: {caught}")
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.full((3,), float(group.process_rank + 1))
    group.sum_gradients([parameter])
    say(f"summed {parameter.grad.tolist()}")


def wait_long(group: ProcessGroup) -> None:
    """The leading process takes longer than the group's patience, first with a result, then to fail."""

    def fails() -> None:
        time.sleep(1.5 * IMPATIENCE.total_seconds())  # longer than the other process waits without a sign of life
        raise ValueError("no such data")

    def works() -> list[int | str]:
        time.sleep(1.5 * IMPATIENCE.total_seconds())  # longer than the other process waits without a sign of life
        return [1, "done"]

    say(f"led {group.broadcast_with_heartbeat(works)}")
    try:
        group.broadcast_with_heartbeat(fails)
    except (PeerLostError, ValueError) as caught:
        say(f"{type(caught).__name__}: {caught}")
    say(f"shared {group.all_gather(lambda: group.process_rank)}")


def memory_runs_out_and_then_one_is_killed(
    group: ProcessGroup, home: str, model: str, round_id: str, token: str
) -> None:
    from dmpo_app.diffusion.loading import load_denoiser
    from dmpo_app.training.loop import trainer
    from dmpo_app.training.loop.step import train_step
    from dmpo_app.training.monitoring.early_stopping import StepResult
    from dmpo_app.training.rounds.round_runner import RoundRunner
    from tests.training.training_studio import TrainingStudio

    steps = 0

    def unlucky(*arguments: Any, micro_pairs: int, **named: Any) -> StepResult:
        nonlocal steps
        steps += 1
        if group.process_rank == 1 and micro_pairs > 1:
            arguments = (_OutOfMemory(), *arguments[1:])
        if group.process_rank == 1 and steps == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        say(f"micro_pairs {micro_pairs}")
        return train_step(*arguments, micro_pairs=micro_pairs, **named)

    trainer.train_step = unlucky  # type: ignore[attr-defined]
    studio = TrainingStudio.open(Path(home), Path(model))
    denoiser = load_denoiser(model, device="cpu", dtype="float32")
    state = studio.store.rounds.get(int(round_id))
    runner = RoundRunner(studio.store, studio.base, denoiser, state, token=int(token), group=group)
    try:
        runner.run_slice(600)
    except PeerLostError as error:
        say(f"PeerLost after step {runner.step}: {error}")
        raise


class _OutOfMemory:
    """Errors of pairs that do not fit."""

    def __init__(self) -> None:
        from types import SimpleNamespace

        from dmpo_app.training.data.training_examples import WholeRankings

        self.dataset = SimpleNamespace(weights=torch.ones(100), rankings=WholeRankings())
        self.device = torch.device("cpu")

    def terms(self, *_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")


def wait_in_python(_: ProcessGroup) -> None:
    """Wait for ever, deaf to SIGTERM, as a process does that waits for a lock."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    say(f"pid {os.getpid()}")
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


if __name__ == "__main__":
    torch.set_num_threads(NUM_THREADS)
    with join_process_group(IMPATIENCE if sys.argv[1] == "wait" else PATIENCE) as group:
        if sys.argv[1] == "agree":
            agree(group)
        elif sys.argv[1] == "wait":
            wait_long(group)
        elif sys.argv[1] == "deaf":
            wait_in_python(group)
        else:
            memory_runs_out_and_then_one_is_killed(group, *sys.argv[2:])

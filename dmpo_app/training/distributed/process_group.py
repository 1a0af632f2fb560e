"""The process group of a training: one process, or those that torchrun started.

Everything that one process may find and all must act on goes through `share`: results, stop, out of memory, failure.
All processes of a group call it in the same order, and afterwards either all have every result or all raise.

Data parallel with the adapter alone to agree on: each process does its share of every batch, gradients are summed once
a step, and each makes the same step from the same sum. Process 0 leads: it alone writes to the store. The others read
the round's votes from the same home, so on several machines that is a shared folder.

Messages are JSON over gloo, gradients go over NCCL where they are on GPUs. A process that is killed closes its
connections; whoever waits for it gets PeerLost at once, or after TIMEOUT when its machine has gone silent.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dmpo_app.errors import PeerLost, SetupProblem
from dmpo_app.training.distributed.torchrun_env import local_rank, world_size

_Result = TypeVar("_Result")


class Group:
    """A single process: it leads, its share is everything, and there is nobody to wait for."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process owns the lease, the checkpoint and what is published."""
        return self.rank == 0

    def share(self, work: Callable[[], _Result]) -> list[_Result]:
        """Do `work` here and return what it gave in each process, by rank. Results are what JSON can hold.

        When it runs out of memory in one, torch.OutOfMemoryError is raised in all; when it fails in one, that one
        raises its error and the others PeerLost.
        """
        return [work()]

    def led(self, decide: Callable[[], _Result]) -> _Result:
        """What `decide` gives in the leading process, in all of them; it runs there alone. Errors as in `share`."""
        leading: list[_Result] = self.share(decide if self.leads else _nothing)  # type: ignore[arg-type]
        return leading[0]

    def led_at_length(self, decide: Callable[[], _Result]) -> _Result:
        """As `led`, for what may take hours. `decide` must not use the group."""
        return self.led(decide)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes, the same bits in all. Raises PeerLost."""

    def part(self, count: int, *, block: int = 1) -> range:
        """This process's positions among `count`, equally many in each; those at and beyond `count` only fill up.

        Parts are whole numbers of blocks, as `count` is.
        """
        size = -(-count // (self.size * block)) * block
        return range(self.rank * size, (self.rank + 1) * size)


ALONE = Group()


def check_parts(group: Group, batch_pairs: int) -> None:
    """Raise SetupProblem when a batch has fewer pairs than the group has processes."""
    if group.size > batch_pairs:
        raise SetupProblem(
            f"{group.size} processes share batches of {batch_pairs} pairs; set DMPO_ROUND__BATCH_PAIRS to at least "
            f"{group.size}, or start fewer"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """The CPU's allocator has no exception of its own."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _nothing() -> None:
    return None


TIMEOUT = timedelta(minutes=10)
"""The longest that one process may work while others wait for it."""
_BEAT_SECONDS = 5.0
_log = logging.getLogger(__name__)


def own_device(device: str) -> str:
    """The device setting for this process: with several on one machine each takes its own GPU."""
    if world_size() > 1 and device in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{local_rank()}"
    return device


@contextmanager
def joined(timeout: timedelta = TIMEOUT) -> Iterator[Group]:
    """The group of all processes that were started together; that of one when this was started by itself.

    Raises SetupProblem when they do not find one another.
    """
    if world_size() == 1:
        yield ALONE
        return
    backend = "cpu:gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
        backend = "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        raise SetupProblem(
            f"{world_size()} processes were started to train together and do not find one another: {error}; start them "
            "with torchrun or accelerate launch, and on several machines with the same --rdzv-endpoint"
        ) from error
    try:
        yield ProcessGroup(timeout=timeout)
    finally:
        dist.destroy_process_group()


class ProcessGroup(Group):
    """The processes of torch's default group."""

    def __init__(self, *, timeout: timedelta = TIMEOUT) -> None:
        self._beat_seconds = min(_BEAT_SECONDS, timeout.total_seconds() / 4)
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def share(self, work: Callable[[], _Result]) -> list[_Result]:
        message: dict[str, Any] = {}
        failure: Exception | None = None
        try:
            message["result"] = work()
        except PeerLost:
            raise  # a share inside this one: all know of it
        except Exception as error:  # noqa: BLE001 - whatever it is, the others must not wait for this process
            failure = error
            message = {"error": f"{type(error).__name__}: {error}", "memory": is_out_of_memory(error)}
        everyone = self._exchange(message)
        failed = [(rank, said) for rank, said in enumerate(everyone) if "error" in said]
        if not failed:
            return [said["result"] for said in everyone]
        fatal = [(rank, said) for rank, said in failed if not said["memory"]]
        if failure is not None and (not fatal or not message["memory"]):
            raise failure
        rank, said = (fatal or failed)[0]
        if fatal:
            raise PeerLost(f"process {rank} of {self.size} failed: {said['error']}")
        raise torch.OutOfMemoryError(f"process {rank} of {self.size} ran out of memory")

    def led_at_length(self, decide: Callable[[], _Result]) -> _Result:
        """The others hear from the leading process every now and then, so that they do not take it for lost."""
        if not self.leads:
            while (said := self.led(_nothing_to_say))["busy"]:
                pass
            return cast(_Result, said["result"])
        result: _Result | None = None
        failure: Exception | None = None
        try:
            with self._heard_of():
                result = decide()
        except PeerLost:
            raise
        except Exception as error:  # noqa: BLE001 - told to all and raised here
            failure = error

        def tell() -> dict[str, Any]:
            if failure is not None:
                raise failure
            return {"busy": False, "result": result}

        return cast(_Result, self.led(tell)["result"])

    @contextmanager
    def _heard_of(self) -> Iterator[None]:
        """Meanwhile a thread of the leading process, the only one to use the group, tells the others to wait on.

        Raises PeerLost at the end when it could not: what was done meanwhile is done all the same.
        """
        done = threading.Event()
        lost: list[PeerLost] = []

        def beat() -> None:
            try:
                while not done.wait(self._beat_seconds):
                    self.led(lambda: {"busy": True})
            except PeerLost as error:
                lost.append(error)

        thread = threading.Thread(target=beat, name="group-beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        if lost:
            raise lost[0]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self._collective(lambda: dist.all_reduce(flat))
        for gradient, summed in zip(
            gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True
        ):
            gradient.copy_(summed.view_as(gradient))

    def _exchange(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Everybody's message, by rank."""
        own = torch.frombuffer(bytearray(json.dumps(message).encode()), dtype=torch.uint8)
        lengths = self._gather(torch.tensor([own.numel()]))
        longest = max(int(length) for length in lengths)
        padded = torch.cat([own, own.new_zeros(longest - own.numel())])
        texts = self._gather(padded)
        return [json.loads(bytes(text[: int(length)].tolist())) for text, length in zip(texts, lengths, strict=True)]

    def _gather(self, tensor: Tensor) -> list[Tensor]:
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        self._collective(lambda: dist.all_gather(found, tensor))
        return found

    def _collective(self, work: Callable[[], object]) -> None:
        try:
            work()
        except RuntimeError as error:  # what gloo and NCCL raise when a connection is gone or silent for too long
            raise PeerLost(
                f"process {self.rank} of {self.size} lost another one, which was killed, failed or hangs ({error}); "
                "its own output says why. The round goes on from its checkpoint when all are started again"
            ) from error


def _nothing_to_say() -> dict[str, Any]:
    return {}

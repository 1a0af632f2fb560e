"""The process group of a training: one process, or those that torchrun started.

Everything that one process may find and all must act on goes through `share`: results, stop, out of memory, failure.
All processes of a group call it in the same order, and afterwards either all have every result or all raise.

Data parallel with the adapter alone to agree on: each process does its share of every batch, gradients are summed once
a step, and each makes the same step from the same sum. Process 0 leads: it alone writes to the store. The others read
the round's votes from the same home, so on several machines that is a shared folder.

Messages are JSON over gloo, gradients go over NCCL where they are on GPUs. A process that is killed closes its
connections; whoever waits for it gets PeerLostError at once, or after TIMEOUT when its machine has gone silent.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dmpo_app.errors import PeerLostError, SetupError
from dmpo_app.io.liveness import end_with_parent
from dmpo_app.training.distributed.torchrun_env import is_under_torchrun, local_rank, world_size

_Result = TypeVar("_Result")


class ProcessGroup:
    """The single-process group: rank 0 of 1, every collective is the identity."""

    process_rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """True in the main process (rank 0), which owns the lease and the checkpoint, and publishes."""
        return self.process_rank == 0

    def all_gather(self, fn: Callable[[], _Result]) -> list[_Result]:
        """Run `fn` in every process and return all results, by rank. Results are JSON values.

        When it runs out of memory in one, torch.OutOfMemoryError is raised in all; when it fails in one, that one
        raises its error and the others PeerLostError.
        """
        return [fn()]

    def broadcast(self, fn: Callable[[], _Result]) -> _Result:
        """Run `fn` in the main process alone and return its result in all processes. Errors as in `all_gather`."""
        results: list[_Result] = self.all_gather(fn if self.is_main else _nothing)  # type: ignore[arg-type]
        return results[0]

    def broadcast_with_heartbeat(self, fn: Callable[[], _Result]) -> _Result:
        """Broadcast as `broadcast` does, for an `fn` that may take hours; it must not use the group."""
        return self.broadcast(fn)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """All-reduce: replace every gradient by its sum over the processes, the same bits in all.

        Raises PeerLostError.
        """

    def shard(self, num_items: int, *, block: int = 1) -> range:
        """This process's shard of `num_items` positions, equally many in each; those from `num_items` on are padding.

        Shards are whole numbers of blocks, as `num_items` is.
        """
        shard_size = -(-num_items // (self.world_size * block)) * block
        return range(self.process_rank * shard_size, (self.process_rank + 1) * shard_size)


SINGLE_PROCESS = ProcessGroup()


def check_world_size(group: ProcessGroup, batch_pairs: int) -> None:
    """Raise SetupError when a batch has fewer pairs than the group has processes."""
    if group.world_size > batch_pairs:
        raise SetupError(
            f"{group.world_size} processes share batches of {batch_pairs} pairs; set DMPO_ROUND__BATCH_PAIRS to at "
            f"least {group.world_size}, or start fewer"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """True for out-of-memory errors; the CPU's allocator has no exception of its own."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _nothing() -> None:
    return None


TIMEOUT = timedelta(minutes=10)
"""The longest time that one process may work while others wait for it."""
_BEAT_SECONDS = 5.0


def device_for_process(device: str) -> str:
    """The device setting for this process: of several on one machine each takes its own GPU."""
    if world_size() > 1 and device in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{local_rank()}"
    return device


@contextmanager
def join_process_group(timeout: timedelta = TIMEOUT) -> Iterator[ProcessGroup]:
    """Join the group of all processes that were started together; a single process is its own group.

    Raises SetupError when they do not find one another.
    """
    if world_size() == 1:
        yield SINGLE_PROCESS
        return
    if is_under_torchrun():
        end_with_parent()  # killed with -9, torchrun stops nobody
    backend = "cpu:gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
        backend = "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        raise SetupError(
            f"{world_size()} processes were started to train together and do not find one another: {error}; start them "
            "with torchrun or accelerate launch, and on several machines with the same --rdzv-endpoint"
        ) from error
    try:
        yield TorchProcessGroup(timeout=timeout)
    finally:
        dist.destroy_process_group()


class TorchProcessGroup(ProcessGroup):
    """The process group on torch's default group: collectives by gloo and NCCL."""

    def __init__(self, *, timeout: timedelta = TIMEOUT) -> None:
        self._heartbeat_seconds = min(_BEAT_SECONDS, timeout.total_seconds() / 4)
        self.process_rank = dist.get_rank()
        self.world_size = dist.get_world_size()

    def all_gather(self, fn: Callable[[], _Result]) -> list[_Result]:
        message: dict[str, Any] = {}
        failure: Exception | None = None
        try:
            message["result"] = fn()
        except PeerLostError:
            raise  # an all_gather inside this one: all know of it
        except Exception as error:  # noqa: BLE001 - whatever it is, the others must not wait for this process
            failure = error
            message = {"error": f"{type(error).__name__}: {error}", "memory": is_out_of_memory(error)}
        replies = self._all_gather_json(message)
        error_replies = [(rank, reply) for rank, reply in enumerate(replies) if "error" in reply]
        if not error_replies:
            return [reply["result"] for reply in replies]
        fatal_replies = [(rank, reply) for rank, reply in error_replies if not reply["memory"]]
        if failure is not None and (not fatal_replies or not message["memory"]):
            raise failure
        rank, reply = (fatal_replies or error_replies)[0]
        if fatal_replies:
            raise PeerLostError(f"process {rank} of {self.world_size} failed: {reply['error']}")
        raise torch.OutOfMemoryError(f"process {rank} of {self.world_size} ran out of memory")

    def broadcast_with_heartbeat(self, fn: Callable[[], _Result]) -> _Result:
        """Broadcast a result that takes long, with a heartbeat to the waiting processes until it is there."""
        if not self.is_main:
            while (reply := self.broadcast(_empty_message))["busy"]:
                pass
            return cast(_Result, reply["result"])
        result: _Result | None = None
        failure: Exception | None = None
        try:
            with self._heartbeat():
                result = fn()
        except PeerLostError:
            raise
        except Exception as error:  # noqa: BLE001 - told to all and raised here
            failure = error

        def send_result() -> dict[str, Any]:
            if failure is not None:
                raise failure
            return {"busy": False, "result": result}

        return cast(_Result, self.broadcast(send_result)["result"])

    @contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Heartbeat thread of the main process, the only user of the group meanwhile, that tells the others to wait on.

        Raises PeerLostError at the end when it could not: what was done meanwhile is done all the same.
        """
        done = threading.Event()
        peer_errors: list[PeerLostError] = []

        def send_heartbeats() -> None:
            try:
                while not done.wait(self._heartbeat_seconds):
                    self.broadcast(lambda: {"busy": True})
            except PeerLostError as error:
                peer_errors.append(error)

        thread = threading.Thread(target=send_heartbeats, name="group-beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        if peer_errors:
            raise peer_errors[0]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self._collective(lambda: dist.all_reduce(flat))
        for gradient, summed in zip(
            gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True
        ):
            gradient.copy_(summed.view_as(gradient))

    def _all_gather_json(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """All-gather a JSON message: those of all processes, by rank."""
        own = torch.frombuffer(bytearray(json.dumps(message).encode()), dtype=torch.uint8)
        lengths = self._all_gather_tensor(torch.tensor([own.numel()]))
        longest = max(int(length) for length in lengths)
        padded = torch.cat([own, own.new_zeros(longest - own.numel())])
        texts = self._all_gather_tensor(padded)
        return [json.loads(bytes(text[: int(length)].tolist())) for text, length in zip(texts, lengths, strict=True)]

    def _all_gather_tensor(self, tensor: Tensor) -> list[Tensor]:
        gathered = [torch.empty_like(tensor) for _ in range(self.world_size)]
        self._collective(lambda: dist.all_gather(gathered, tensor))
        return gathered

    def _collective(self, fn: Callable[[], object]) -> None:
        try:
            fn()
        except RuntimeError as error:  # what gloo and NCCL raise when a connection is gone or silent for too long
            raise PeerLostError(
                f"process {self.process_rank} of {self.world_size} lost another one, which was killed, failed or hangs "
                f"({error}); its own output says why. The round goes on from its checkpoint when all are started again"
            ) from error


def _empty_message() -> dict[str, Any]:
    return {}

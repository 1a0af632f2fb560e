"""The processes that train a round together; here the group of one, `distributed.ProcessGroup` is that of several.

Everything that one process may find and all must act on goes through `share`: results, stop, out of memory, failure.
All processes of a group call it in the same order, and afterwards either all have every result or all raise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn

from dmpo_app.errors import SetupProblem

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

"""Data-parallel gradients on all cores: one share of the batch a thread, whole layers at a time.

The usual way, all threads inside every operator, makes them wait for each other hundreds of times a step and stalls
when another program takes a core for a moment. Here they wait once a step. The result does not depend on timing.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor, nn

NUM_SHARDS = 2  # parts of a batch; fixed, so that every machine adds the same numbers in the same order


@contextmanager
def single_threaded_operators() -> Iterator[None]:
    """Use one torch thread while the shares of a batch have threads of their own; restores the number on exit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def set_gradients(
    model: nn.Module, threads: ThreadPoolExecutor, loss_fn: Callable[..., Tensor], *batch: Tensor
) -> float:
    """Set the gradients of `loss_fn(*batch)`, a mean over the batch, on the model's parameters; returns the loss."""
    parameters = list(model.parameters())

    def work(shard: tuple[Tensor, ...]) -> tuple[float, tuple[Tensor, ...]]:
        loss = loss_fn(*shard)
        return float(loss.detach()), torch.autograd.grad(loss, parameters)

    results = list(threads.map(work, zip(*(part.chunk(NUM_SHARDS) for part in batch), strict=True)))
    for parameter, *gradients in zip(parameters, *(gradients for _, gradients in results), strict=True):
        parameter.grad = torch.stack(gradients).mean(0)
    return sum(loss for loss, _ in results) / len(results)

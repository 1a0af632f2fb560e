"""Compilation of the denoiser's forward pass by torch, for the length of a round.

A compiled graph reads the adapter's parameters as its inputs: copying another state into them, and attaching another
adapter of the same kind in the next round, changes nothing about it. What would change it is switching the adapter's
layers off, so a compiled round computes its references with B at zero instead, through the very same graph.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

BACKEND = "inductor"
_log = logging.getLogger(__name__)


def can_compile(device: torch.device) -> bool:
    """Probe whether torch can compile on this device; the log says why not. Takes some seconds the first time."""
    try:
        torch.compile(_probe, backend=BACKEND)(torch.ones(8, device=device))
    except Exception as error:  # noqa: BLE001 - compilers are missing in many ways, and a round can do without
        _log.warning(
            "DMPO_ROUND__COMPILE: torch cannot compile for %s, the round goes on without it; a C++ compiler (CPU) or "
            "Triton (GPU) is needed: %s",
            device,
            str(error).strip().partition("\n")[0],
        )
        return False
    return True


def compile_in_place(module: nn.Module) -> None:
    """Compile the module's forward at its next call; batches of another shape are compiled for themselves."""
    module.compile(backend=BACKEND, dynamic=False)


def restore_eager(module: nn.Module) -> None:
    """Restore the eager forward. torch keeps the compiled graph for the next `compile_in_place`."""
    module._compiled_call_impl = None


@contextmanager
def eager_forward(module: nn.Module) -> Iterator[None]:
    """Context manager for the eager forward: for passes of another shape, or without gradients.

    Those would be compiled for themselves.
    """
    compiled = module._compiled_call_impl
    module._compiled_call_impl = None
    try:
        yield
    finally:
        module._compiled_call_impl = compiled


@contextmanager
def zeroed_adapter(parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """Context manager that sets every B of the adapter (parameters by file key) to zero, so that it adds exactly 0."""
    ups = [tensor.detach() for key, tensor in parameters.items() if ".lora_B." in key]
    before = [tensor.clone() for tensor in ups]
    torch._foreach_zero_(ups)
    try:
        yield
    finally:
        torch._foreach_copy_(ups, before)


def _probe(values: Tensor) -> Tensor:
    return values.sin() + 1

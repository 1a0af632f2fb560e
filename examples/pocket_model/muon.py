"""Muon: momentum whose every direction is given the same length, for kernels and matrices.

Under Adam the autoencoder learns outlines for thousands of steps before it learns colours, because few directions
of a kernel get all the gradient. Jordan et al. 2024 (kellerjordan.github.io/posts/muon); the scale that makes a
learning rate for Adam fit is Liu et al. 2025 (arXiv 2502.16982).
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn


def orthogonalize(matrix: Tensor, *, iterations: int = 5) -> Tensor:
    """`matrix` (rows, columns) with all its singular values brought close to 1, by Newton and Schulz's iteration."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x: Tensor = wide / (wide.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class Muon(torch.optim.Optimizer):
    """Muon for parameters with two or more dimensions; the first is the rows, the others together are the columns."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], threads: ThreadPoolExecutor, *, lr: float, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})
        self._threads = threads

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """One update of every parameter that has a gradient; `closure` is there for the base class and unused."""
        for group in self.param_groups:
            # Largest first, so that no thread is left alone with a long job at the end.
            parameters = sorted(group["params"], key=torch.numel, reverse=True)
            list(self._threads.map(lambda parameter, group=group: self._update(parameter, group), parameters))

    @torch.no_grad()
    def _update(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        if parameter.grad is None:
            return
        average = self.state[parameter].setdefault("average", torch.zeros_like(parameter))
        average.lerp_(parameter.grad, 1 - group["momentum"])
        ahead = parameter.grad.lerp(average, group["momentum"]).flatten(1)
        scale = 0.2 * max(ahead.shape) ** 0.5
        direction = orthogonalize(ahead.bfloat16()).to(parameter.dtype)
        parameter.add_(direction.view_as(parameter), alpha=-group["lr"] * scale)


class Optimizers:
    """Muon for the matrices and kernels of a model, AdamW for everything else, as one."""

    def __init__(self, model: nn.Module, threads: ThreadPoolExecutor, *, lr: float) -> None:
        tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        matrices = [p for p in model.parameters() if p.ndim > 1 and id(p) not in tables]
        others = [p for p in model.parameters() if p.ndim == 1 or id(p) in tables]
        adamw = torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.99), weight_decay=1e-3)
        self._both: tuple[torch.optim.Optimizer, ...] = (Muon(matrices, threads, lr=lr), adamw)

    def step(self, rate: float) -> None:
        """One update at this learning rate."""
        for optimizer in self._both:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self._both]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for optimizer, state in zip(self._both, states, strict=True):
            optimizer.load_state_dict(state)

"""The exponential moving average (EMA) of the adapter over the steps of a round.

    m_t = d m_(t-1) + (1 - d) w_t,  m_0 = 0;   average_t = m_t / (1 - d^t)

The division is Adam's correction of the start: without it the average of a short round would be mostly its beginning,
with it the weights of the steps add up to 1 after any number of them. (The averages of torch and diffusers begin at the
first weights instead, and the latter lets the decay grow.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dmpo_app.diffusion.lora import load_state_in_place


class AdapterEma:
    """The EMA of `parameters` with decay d, 0 < d < 1. `num_updates` is t, the steps in it so far."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self._parameters = parameters
        self._decay = decay
        self._sums = {key: torch.zeros_like(parameter) for key, parameter in parameters.items()}
        self.num_updates = 0

    def update(self) -> None:
        """Update the average with the parameters as they are now."""
        with torch.no_grad():
            torch._foreach_lerp_(list(self._sums.values()), list(self._parameters.values()), 1 - self._decay)
        self.num_updates += 1

    def state(self) -> dict[str, Tensor]:
        """A copy of m on the CPU, by key."""
        return {key: value.to("cpu", copy=True) for key, value in self._sums.items()}

    def restore(self, sums: Mapping[str, Tensor], num_updates: int) -> None:
        """Restore what `state` gave after `num_updates` steps."""
        load_state_in_place(self._sums, sums)
        self.num_updates = num_updates

    @contextmanager
    def average_parameters(self) -> Iterator[None]:
        """Context manager that replaces the parameters by their average. It does nothing before step 1."""
        if self.num_updates == 0:
            yield
            return
        before = {key: parameter.detach().clone() for key, parameter in self._parameters.items()}
        bias_correction = 1 - self._decay**self.num_updates
        load_state_in_place(self._parameters, {key: value / bias_correction for key, value in self._sums.items()})
        try:
            yield
        finally:
            load_state_in_place(self._parameters, before)

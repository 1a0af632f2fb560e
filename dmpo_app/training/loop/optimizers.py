"""Optimizers by name with their state as tensors of a checkpoint, and the average of the adapter's weights.

torch's own way of saving an optimizer is a pickle. Here everything an optimizer keeps for a parameter, and every number
and tensor in its groups, is written down by name and put back to the last bit.

    adamw       torch, fused; two float32 moments a parameter
    adamw8bit   bitsandbytes (an extra, CUDA only); the same moments in 8 bits
    prodigy     prodigyopt (an extra); AdamW that finds its own step size, see arXiv:2306.06101
    adafactor   transformers; one factored moment, see arXiv:1804.04235

Adafactor is transformers' and not torch's: torch's always multiplies its steps by the size of the parameter, and LoRA's
B begins at zero. Here it has a fixed learning rate.

    m_t = d m_(t-1) + (1 - d) w_t,  m_0 = 0;   average_t = m_t / (1 - d^t)

The division is Adam's correction of the start: without it the average of a short round would be mostly its beginning,
with it the weights of the steps add up to 1 after any number of them. (The averages of torch and diffusers begin at the
first weights instead, and the latter lets the decay grow.)
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal, Self, assert_never

import torch
from torch import Tensor, nn

from dmpo_app.diffusion.lora import load_state_in_place
from dmpo_app.errors import SetupError

Number = int | float | bool | None


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """Optimizer state: CPU tensors and numbers by `<parameter's key>/<name>` or, of groups, `<position>/<name>`."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    numbers: Mapping[str, Number] = field(default_factory=dict)
    group_tensors: Mapping[str, Tensor] = field(default_factory=dict)
    group_numbers: Mapping[str, Number] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """False before the first step."""
        return bool(self.tensors or self.numbers)

    @classmethod
    def from_optimizer(cls, optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> Self:
        """Copy the optimizer's state; empty before its first step. Raises TypeError for values that cannot be saved."""
        if not optimizer.state:
            return cls()
        tensors, numbers = _split_values({key: optimizer.state[value] for key, value in parameters.items()})
        groups = {
            str(position): {name: value for name, value in group.items() if _may_change(name, value)}
            for position, group in enumerate(optimizer.param_groups)
        }
        return cls(tensors, numbers, *_split_values(groups))

    def restore(self, optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
        """Restore the state into a fresh optimizer of the same kind over the same parameters."""
        for path, value in [*self.numbers.items(), *self.tensors.items()]:
            key, name = path.rsplit("/", 1)
            parameter = parameters[key]
            optimizer.state.setdefault(parameter, {})[name] = _to_device(parameter.device, value)
        device = next(iter(parameters.values())).device
        for path, value in [*self.group_numbers.items(), *self.group_tensors.items()]:
            position, name = path.split("/", 1)
            optimizer.param_groups[int(position)][name] = _to_device(device, value)


def _split_values(owners: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Tensor], dict[str, Number]]:
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Number] = {}
    for owner, values in owners.items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{owner}/{name}"] = value.detach().to("cpu", copy=True)
            elif value is None or isinstance(value, int | float):
                numbers[f"{owner}/{name}"] = value
            else:
                raise TypeError(f"an optimizer's {name} of {owner} is a {type(value).__name__}; it cannot be saved")
    return tensors, numbers


def _may_change(name: str, value: object) -> bool:
    """True for group values that steps change; pairs of numbers (betas) and method names stay as constructed."""
    return name != "params" and (value is None or isinstance(value, int | float | Tensor))


def _to_device(device: torch.device, value: Tensor | Number) -> Tensor | Number:
    """Move a value to its parameter's device, where all four optimizers keep it; a fused AdamW its step count too."""
    return value.to(device, copy=True) if isinstance(value, Tensor) else value


OptimizerName = Literal["adamw", "adamw8bit", "prodigy", "adafactor"]


def make_optimizer(
    parameters: Mapping[str, nn.Parameter],
    *,
    learning_rate: float,
    name: OptimizerName = "adamw",
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """An optimizer over the adapter's float32 parameters. Raises SetupError when its library is missing.

    AdamW without weight decay is the usual one: the margin's finite goal is what holds the adapter.
    """
    parameter_list = list(parameters.values())
    check_optimizer(name, parameter_list[0].device)
    if name == "adamw":
        return torch.optim.AdamW(parameter_list, lr=learning_rate, weight_decay=weight_decay, fused=True)
    if name == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit

        eight_bit: torch.optim.Optimizer = AdamW8bit(parameter_list, lr=learning_rate, weight_decay=weight_decay)
        return eight_bit
    if name == "prodigy":
        return _prodigy(parameter_list, learning_rate, weight_decay)
    if name == "adafactor":
        from transformers.optimization import Adafactor

        adafactor: torch.optim.Optimizer = Adafactor(
            parameter_list, lr=learning_rate, weight_decay=weight_decay, scale_parameter=False, relative_step=False
        )
        return adafactor
    assert_never(name)


def check_optimizer(name: OptimizerName, device: torch.device) -> None:
    """Raise SetupError, with what to install, when this optimizer cannot run on `device`."""
    if name == "adamw8bit" and device.type != "cuda":
        raise SetupError(
            f"DMPO_ROUND__OPTIMIZER=adamw8bit needs a CUDA GPU and the device is {device.type}; "
            "set DMPO_ROUND__OPTIMIZER=adamw, or adafactor where memory is short"
        )
    package = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt"}.get(name)
    if package is not None and find_spec(package) is None:
        raise SetupError(f"DMPO_ROUND__OPTIMIZER={name} needs {package}: `pip install {package}`")


def _prodigy(parameter_list: list[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    from prodigyopt import Prodigy

    optimizer: torch.optim.Optimizer = Prodigy(
        parameter_list, lr=learning_rate, use_bias_correction=True, safeguard_warmup=True
    )
    for group in optimizer.param_groups:
        group["weight_decay"] = weight_decay  # as an argument it makes the library print to the output
    return optimizer


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

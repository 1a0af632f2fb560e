"""What any optimizer remembers between two steps, as tensors and numbers that a safetensors file and JSON can hold.

torch's own way of saving an optimizer is a pickle. Here everything an optimizer keeps for a parameter, and every number
and tensor in its groups, is written down by name and put back to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Number = int | float | bool | None


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """Tensors (copies on the CPU) and numbers by `<parameter's key>/<name>` and, of groups, `<position>/<name>`."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    numbers: Mapping[str, Number] = field(default_factory=dict)
    group_tensors: Mapping[str, Tensor] = field(default_factory=dict)
    group_numbers: Mapping[str, Number] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """False before the first step."""
        return bool(self.tensors or self.numbers)

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> OptimizerState:
        """What the optimizer knows now; empty before its first step. Raises TypeError for what has no place here."""
        if not optimizer.state:
            return cls()
        tensors, numbers = _sorted_out({key: optimizer.state[value] for key, value in parameters.items()})
        groups = {
            str(position): {name: value for name, value in group.items() if _may_change(name, value)}
            for position, group in enumerate(optimizer.param_groups)
        }
        return cls(tensors, numbers, *_sorted_out(groups))

    def restore(self, optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
        """Put a fresh optimizer of the same kind over the same parameters where `of` found the other."""
        for path, value in [*self.numbers.items(), *self.tensors.items()]:
            key, name = path.rsplit("/", 1)
            parameter = parameters[key]
            optimizer.state.setdefault(parameter, {})[name] = _on(parameter.device, value)
        device = next(iter(parameters.values())).device
        for path, value in [*self.group_numbers.items(), *self.group_tensors.items()]:
            position, name = path.split("/", 1)
            optimizer.param_groups[int(position)][name] = _on(device, value)


def _sorted_out(owners: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Tensor], dict[str, Number]]:
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
    """Pairs of numbers (betas) and names of methods are as the optimizer was made."""
    return name != "params" and (value is None or isinstance(value, int | float | Tensor))


def _on(device: torch.device, value: Tensor | Number) -> Tensor | Number:
    """None of the four keeps a tensor elsewhere than beside its parameter; a fused AdamW counts its steps there."""
    return value.to(device, copy=True) if isinstance(value, Tensor) else value

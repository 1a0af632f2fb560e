"""The optimizers that a round can use, and how the learning rate runs over its steps.

    adamw       torch, fused; two float32 moments a parameter
    adamw8bit   bitsandbytes (an extra, CUDA only); the same moments in 8 bits
    prodigy     prodigyopt (an extra); AdamW that finds its own step size, see arXiv:2306.06101
    adafactor   transformers; one factored moment, see arXiv:1804.04235

Adafactor is transformers' and not torch's: torch's always multiplies its steps by the size of the parameter, and LoRA's
B begins at zero. Here it has a fixed learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Literal, assert_never

import torch
from torch import nn

from dmpo_app.errors import SetupProblem
from dmpo_app.settings import RoundSettings

OptimizerName = Literal["adamw", "adamw8bit", "prodigy", "adafactor"]


def make_optimizer(
    parameters: Mapping[str, nn.Parameter],
    *,
    learning_rate: float,
    name: OptimizerName = "adamw",
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """An optimizer over the adapter's float32 parameters. Raises SetupProblem when its library is missing.

    AdamW without weight decay is the usual one: the margin's finite goal is what holds the adapter.
    """
    trained = list(parameters.values())
    check_optimizer(name, trained[0].device)
    if name == "adamw":
        return torch.optim.AdamW(trained, lr=learning_rate, weight_decay=weight_decay, fused=True)
    if name == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit

        eight_bit: torch.optim.Optimizer = AdamW8bit(trained, lr=learning_rate, weight_decay=weight_decay)
        return eight_bit
    if name == "prodigy":
        return _prodigy(trained, learning_rate, weight_decay)
    if name == "adafactor":
        from transformers.optimization import Adafactor

        adafactor: torch.optim.Optimizer = Adafactor(
            trained, lr=learning_rate, weight_decay=weight_decay, scale_parameter=False, relative_step=False
        )
        return adafactor
    assert_never(name)


def check_optimizer(name: OptimizerName, device: torch.device) -> None:
    """Raise SetupProblem, with what to install, when this optimizer cannot run on `device`."""
    if name == "adamw8bit" and device.type != "cuda":
        raise SetupProblem(
            f"DMPO_ROUND__OPTIMIZER=adamw8bit needs a CUDA GPU and the device is {device.type}; "
            "set DMPO_ROUND__OPTIMIZER=adamw, or adafactor where memory is short"
        )
    package = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt"}.get(name)
    if package is not None and find_spec(package) is None:
        raise SetupProblem(f"DMPO_ROUND__OPTIMIZER={name} needs {package}: `pip install {package}`")


def learning_rate_factor(step: int, settings: RoundSettings) -> float:
    """What the learning rate is multiplied by in step `step`, counted from 0; 0 < factor <= 1.

    It grows in equal parts over the first `warmup_steps`; then it stays (constant), or falls to near 0 at the round's
    last step, in a straight line or along half a cosine.
    """
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.lr_schedule == "constant":
        return 1.0
    done = (step - settings.warmup_steps) / max(1, settings.num_steps - settings.warmup_steps)
    return 1 - done if settings.lr_schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """For the steps from here on."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def _prodigy(trained: list[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    from prodigyopt import Prodigy

    optimizer: torch.optim.Optimizer = Prodigy(
        trained, lr=learning_rate, use_bias_correction=True, safeguard_warmup=True
    )
    for group in optimizer.param_groups:
        group["weight_decay"] = weight_decay  # as an argument it makes the library print to the output
    return optimizer

"""The check of a loss that somebody else wrote, on a few pairs, before it is trained with.

Shapes:  B pairs, one for each margin and target that are tried;  the latents are (1, 2, 2).
"""

import inspect
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor

from dmpo_app.errors import BadInputError
from dmpo_app.objective.margins import Loss, Needs, Objective, PairTerms, Residuals, loss_from_margin

MARGINS = (0.0, 1.0, -1.0, 30.0, -30.0, 200.0, -200.0)
"""Margins that a loss is tried at: 0, where every training begins, and far out, where log(sigmoid(u)) overflows."""
TARGETS = (0.95, 0.5, 0.05)
BETA = 1000.0
"""A usual scale, at which those margins are differences of errors up to 0.4."""
_FORMS = "loss(margin, target, **options) or loss(terms, *, beta, **options), with a default for every option"


def as_loss(name: str, function: Callable[..., Any]) -> tuple[Loss, dict[str, float]]:
    """Read a function's signature: the loss as a function of terms, and its options with their usual values.

    Two arguments are margin and target, one is the terms. Raises BadInputError for any other signature.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise BadInputError(
            f"the loss {name!r} is no function with a signature ({error}); expected {_FORMS}"
        ) from error
    named = [one for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL) and one.name != "beta"]
    required = [one.name for one in named if one.default is one.empty]
    options = {one.name: one.default for one in named if one.default is not one.empty}
    for option, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadInputError(
                f"the option {option!r} of the loss {name!r} is {value!r} unless set, expected a number"
            )
    takes_beta = any(one.name == "beta" or one.kind is one.VAR_KEYWORD for one in parameters)
    if len(required) == 2 and not any(one.name == "beta" for one in parameters):
        return loss_from_margin(function), options
    if len(required) == 1 and takes_beta:
        return function, options
    signature = f"{name}{inspect.signature(function)}"
    raise BadInputError(f"the loss {name!r} is called as {signature}, expected {_FORMS}")


def check_loss(objective: Objective) -> None:
    """Try a loss on a few pairs. Raises BadInputError unless value and gradient are finite, one loss a pair.

    The loss of a pair may depend on that pair alone: batches are cut in pieces as memory allows, and the pieces must
    give the gradient of the whole.
    """
    terms, residuals = _trial_terms(objective.needs)
    name, num_pairs = objective.name, len(terms.target)
    try:
        losses = objective.loss(terms, beta=BETA, **objective.options)
    except Exception as error:
        raise BadInputError(f"the loss {name!r} fails on a small batch: {type(error).__name__}: {error}") from error
    if not isinstance(losses, Tensor) or losses.shape != (num_pairs,) or not losses.is_floating_point():
        kind = f"a tensor of {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise BadInputError(f"the loss {name!r} gave {kind} for {num_pairs} pairs, expected one number a pair, (B,)")
    if not bool(torch.isfinite(losses).all()):
        raise BadInputError(f"the loss {name!r} is not finite {_where(terms, ~torch.isfinite(losses))}; {_ADVICE}")
    if not losses.requires_grad:
        raise BadInputError(f"the loss {name!r} has no gradient with respect to the policy; is it detached?")
    is_bad = ~torch.isfinite(_gradient(losses.sum(), residuals)).flatten(2).all(2).all(0)
    if bool(is_bad.any()):
        raise BadInputError(f"the gradient of the loss {name!r} is not finite {_where(terms, is_bad)}; {_ADVICE}")
    gradients = [_gradient(losses[pair], residuals) for pair in range(num_pairs)]
    if not any(bool(gradient.any()) for gradient in gradients):
        raise BadInputError(f"the loss {name!r} moves the policy on no pair: its gradient is zero for every margin")
    for pair, gradient in enumerate(gradients):
        gradient[:, pair] = 0
        if bool(gradient.any()):
            raise BadInputError(
                f"the loss {name!r} of one pair depends on other pairs of the batch, and a batch is cut in pieces"
            )


_ADVICE = "take logsigmoid(u), not log(sigmoid(u)), or clamp; it must use only what `needs` names"


def _trial_terms(needs: Needs) -> tuple[PairTerms, tuple[Tensor, Tensor]]:
    """Terms with every margin and target, and their leaves: the policy's residuals (B, 1, 2, 2).

    What an objective does not need of the reference is not a number, so that using it shows.
    """
    margins, targets = torch.tensor(list(product(MARGINS, TARGETS))).unbind(1)
    gains = 2 * margins / BETA
    error_a, error_b = 0.5 + (-gains).clamp(min=0), 0.5 + gains.clamp(min=0)
    policy_a, policy_b = (_constant_latents(error).requires_grad_() for error in (error_a, error_b))
    reference = torch.full_like(margins, float("nan") if needs is Needs.NOTHING else 0.5)
    with_predictions = needs is Needs.PREDICTIONS
    reference_residuals = _constant_latents(reference) if with_predictions else None
    terms = PairTerms(
        policy_a=policy_a.square().mean((1, 2, 3)),
        policy_b=policy_b.square().mean((1, 2, 3)),
        reference_a=reference,
        reference_b=reference,
        target=targets,
        residuals=Residuals(policy_a, policy_b, reference_residuals, reference_residuals) if with_predictions else None,
    )
    return terms, (policy_a, policy_b)


def _constant_latents(errors: Tensor) -> Tensor:
    """Residuals whose mean square is the error of each pair."""
    return errors.sqrt()[:, None, None, None].repeat(1, 1, 2, 2)


def _gradient(loss: Tensor, residuals: tuple[Tensor, Tensor]) -> Tensor:
    """The gradient of a loss (), (2, B, 1, 2, 2), zeros where there is none."""
    gradients = torch.autograd.grad(loss, residuals, retain_graph=True, allow_unused=True)
    return torch.stack(
        [torch.zeros_like(leaf) if one is None else one for one, leaf in zip(gradients, residuals, strict=True)]
    )


def _where(terms: PairTerms, is_bad: Tensor) -> str:
    margins = [margin for margin, _ in product(MARGINS, TARGETS)]
    pair = int(is_bad.nonzero()[0])
    return f"at a margin of {margins[pair]:g} with the target {terms.target[pair].item():g}"

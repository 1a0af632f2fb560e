"""Registry of the objectives by name: those of this folder, and others' that are registered, installed or imported.

Another's objective is a function or an `Objective`, and reaches the registry in one of three ways:

    register("hinge", hinge)                   in the process that trains
    entry point "hinge" of "dmpo.objectives"   of an installed package, by its name
    "my_losses:hinge"                          imported when the settings of this process name it

Importing runs code, so `load_objective` is for names out of the environment, dmpo.toml, a command line or Python. Names
from a database, a file or a page are looked up by `get_objective`, which imports nothing but installed entry points.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from itertools import product
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from dmpo_app.errors import BadInputError, SetupError
from dmpo_app.objective.alpha_divergence import ALPHA_PO
from dmpo_app.objective.alpha_divergence import OBJECTIVE as ALPHA_DIVERGENCE
from dmpo_app.objective.conservative_dpo import OBJECTIVE as CONSERVATIVE_DPO
from dmpo_app.objective.diffusion_dpo import OBJECTIVE as DIFFUSION_DPO
from dmpo_app.objective.diffusion_kto import OBJECTIVE as DIFFUSION_KTO
from dmpo_app.objective.dmpo import OBJECTIVE as DMPO
from dmpo_app.objective.dspo import OBJECTIVE as DSPO
from dmpo_app.objective.ipo import OBJECTIVE as IPO
from dmpo_app.objective.mapo import OBJECTIVE as MAPO
from dmpo_app.objective.margins import Loss, Needs, Objective, PairTerms, Residuals, loss_from_margin
from dmpo_app.objective.sft import OBJECTIVE as SFT

TRIAL_MARGINS = (0.0, 1.0, -1.0, 30.0, -30.0, 200.0, -200.0)
"""Margins that a loss is tried at: 0, where every training begins, and far out, where log(sigmoid(u)) overflows."""
TRIAL_TARGETS = (0.95, 0.5, 0.05)
TRIAL_BETA = 1000.0
"""A usual scale, at which those margins are differences of errors up to 0.4."""
_FORMS = "loss(margin, target, **options) or loss(terms, *, beta, **options), with a default for every option"
_ADVICE = "take logsigmoid(u), not log(sigmoid(u)), or clamp; it must use only what `needs` names"

ENTRY_POINTS = "dmpo.objectives"
"""The entry point group in which a package names its objectives."""
_ALL = (DMPO, DIFFUSION_DPO, CONSERVATIVE_DPO, IPO, ALPHA_DIVERGENCE, ALPHA_PO, SFT, DIFFUSION_KTO, DSPO, MAPO)
_BUILT_IN = frozenset(objective.name for objective in _ALL)
_OWN = "an objective of one's own"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_objectives = {objective.name: objective for objective in _ALL}
OBJECTIVES: Mapping[str, Objective] = MappingProxyType(_objectives)
"""Every objective that is registered in this process, by name; `register` adds to it."""


def register(
    name: str,
    loss: Callable[..., Tensor],
    *,
    needs: str = Needs.ERRORS,
    soft: bool = False,
    start_spread: float | None = DMPO.start_spread,
    title: str | None = None,
    formula: str | None = None,
    source: str = _OWN,
    replace: bool = False,
) -> Objective:
    """Register an objective of one's own under a name, for this process; it is tried on a few pairs first.

    Args:
        loss: `loss(margin, target)`, tensors (B,) of u and q, or `loss(terms, *, beta)` of `PairTerms`; gives the loss
            of each pair, (B,). Further parameters with a number as default are the objective's options.
        needs: of the reference: "nothing", "errors", or "predictions" (for `terms.residuals`); see `Needs`.
        soft, start_spread: see `Objective`.
        title, formula, source: for people; the formula is the first line of the loss's docstring unless given.
        replace: take the place of an earlier one of one's own, as when a cell of a notebook runs again.

    Raises BadInputError for a name that is taken or no name, and for a loss that does not fit.
    """
    if not _NAME.fullmatch(name):
        raise BadInputError(f"{name!r} is no name for an objective; expected lower-case letters, digits, - and _")
    objective = _objective_of(
        name, loss, needs=needs, soft=soft, start_spread=start_spread, title=title, formula=formula, source=source
    )
    return _add(objective, may_replace=replace)


def unregister(name: str) -> None:
    """Remove an objective of one's own. Raises BadInputError for one of the studio's, or where there is none."""
    if name in _BUILT_IN or name not in _objectives:
        raise BadInputError(f"{name!r} is no objective that was registered")
    del _objectives[name]


def get_objective(name: str, options: Mapping[str, float] | None = None) -> Objective:
    """The objective of that name, which must know all of `options`. Raises SetupError that lists what there is.

    An installed entry point is loaded at its first use; a `module:name` must have been loaded by `load_objective`.
    """
    if name not in _objectives and (entry_point := _installed().get(name)) is not None:
        _add_from(name, entry_point.load, f"the entry point {entry_point.value} of {ENTRY_POINTS}")
    if name not in _objectives:
        advice = "; a module:name must be what DMPO_ROUND__OBJECTIVE names in this process" if ":" in name else ""
        names = ", ".join([*_objectives, *_not_loaded()])
        raise SetupError(f"DMPO_ROUND__OBJECTIVE={name!r} is no objective; there are {names}{advice}")
    objective = _objectives[name]
    if unknown := sorted(set(options or {}) - set(objective.options)):
        option_names = ", ".join(objective.options) or "none"
        raise SetupError(f"the objective {name} has no option {unknown[0]!r}; it has: {option_names}")
    return objective


def load_objective(name: str, options: Mapping[str, float] | None = None) -> Objective:
    """Like `get_objective`, and imports a `module:name` first: for names that whoever runs this process has set."""
    if ":" in name and name not in _objectives:
        _add_from(name, lambda: _imported(name), name)
    return get_objective(name, options)


def load_installed() -> None:
    """Load the objectives of all installed entry points, to list them. Raises SetupError for one that does not fit."""
    for name in _not_loaded():
        get_objective(name)


def _installed() -> dict[str, EntryPoint]:
    return {one.name: one for one in entry_points(group=ENTRY_POINTS) if one.name not in _BUILT_IN}


def _not_loaded() -> list[str]:
    return sorted(set(_installed()) - set(_objectives))


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _add_from(name: str, load: Callable[[], Any], origin: str) -> None:
    """Load an objective from elsewhere and add it. Raises SetupError when it cannot be loaded or does not fit."""
    try:
        value = load()
    except (ImportError, AttributeError, ValueError) as error:
        raise SetupError(
            f"the objective {name!r} cannot be loaded from {origin} ({type(error).__name__}: {error}); is its module "
            "installed, or its folder on PYTHONPATH?"
        ) from error
    try:
        objective = replace(value, name=name) if isinstance(value, Objective) else _objective_of(name, value)
        _add(objective)
    except BadInputError as error:
        raise SetupError(f"{origin} is no objective: {error}") from error


def _add(objective: Objective, *, may_replace: bool = False) -> Objective:
    name = objective.name
    if name in _BUILT_IN:
        raise BadInputError(f"{name!r} is an objective of the studio; choose another name")
    if name in _objectives and not may_replace:
        raise BadInputError(f"there is an objective {name!r} already; choose another name, or pass replace=True")
    check_loss(objective)
    _objectives[name] = objective
    return objective


def _objective_of(
    name: str,
    function: Callable[..., Tensor],
    *,
    needs: str = Needs.ERRORS,
    title: str | None = None,
    formula: str | None = None,
    source: str = _OWN,
    **fields: Any,
) -> Objective:
    if needs not in list(Needs):
        raise BadInputError(f"needs={needs!r} is none of {', '.join(Needs)}")
    loss, options = as_loss(name, function)
    summary = (function.__doc__ or "").strip().partition("\n")[0].removesuffix(".")
    return Objective(
        name=name,
        title=title or name,
        formula=formula or summary or "not given",
        source=source,
        loss=loss,
        needs=Needs(needs),
        options=options,
        **fields,
    )


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
        losses = objective.loss(terms, beta=TRIAL_BETA, **objective.options)
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


def _trial_terms(needs: Needs) -> tuple[PairTerms, tuple[Tensor, Tensor]]:
    """Terms with every margin and target, and their leaves: the policy's residuals (B, 1, 2, 2).

    What an objective does not need of the reference is not a number, so that using it shows.
    """
    margins, targets = torch.tensor(list(product(TRIAL_MARGINS, TRIAL_TARGETS))).unbind(1)
    gains = 2 * margins / TRIAL_BETA
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
    margins = [margin for margin, _ in product(TRIAL_MARGINS, TRIAL_TARGETS)]
    pair = int(is_bad.nonzero()[0])
    return f"at a margin of {margins[pair]:g} with the target {terms.target[pair].item():g}"

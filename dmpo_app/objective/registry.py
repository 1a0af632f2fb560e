"""Registry of the objectives by name: those of this folder, and others' that are registered, installed or imported.

Another's objective is a function or an `Objective`, and reaches the registry in one of three ways:

    register("hinge", hinge)                   in the process that trains
    entry point "hinge" of "dmpo.objectives"   of an installed package, by its name
    "my_losses:hinge"                          imported when the settings of this process name it

Importing runs code, so `load_objective` is for names out of the environment, dmpo.toml, a command line or Python. Names
from a database, a file or a page are looked up by `get_objective`, which imports nothing but installed entry points.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

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
from dmpo_app.objective.loss_check import as_loss, check_loss
from dmpo_app.objective.mapo import OBJECTIVE as MAPO
from dmpo_app.objective.margins import Needs, Objective
from dmpo_app.objective.sft import OBJECTIVE as SFT

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

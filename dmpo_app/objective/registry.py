"""Registry of the objectives by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dmpo_app.errors import SetupError
from dmpo_app.objective.alpha_divergence import ALPHA_PO
from dmpo_app.objective.alpha_divergence import OBJECTIVE as ALPHA_DIVERGENCE
from dmpo_app.objective.conservative_dpo import OBJECTIVE as CONSERVATIVE_DPO
from dmpo_app.objective.diffusion_dpo import OBJECTIVE as DIFFUSION_DPO
from dmpo_app.objective.diffusion_kto import OBJECTIVE as DIFFUSION_KTO
from dmpo_app.objective.dmpo import OBJECTIVE as DMPO
from dmpo_app.objective.dspo import OBJECTIVE as DSPO
from dmpo_app.objective.ipo import OBJECTIVE as IPO
from dmpo_app.objective.mapo import OBJECTIVE as MAPO
from dmpo_app.objective.protocol import Objective
from dmpo_app.objective.sft import OBJECTIVE as SFT

_ALL = (DMPO, DIFFUSION_DPO, CONSERVATIVE_DPO, IPO, ALPHA_DIVERGENCE, ALPHA_PO, SFT, DIFFUSION_KTO, DSPO, MAPO)
OBJECTIVES: Mapping[str, Objective] = MappingProxyType({objective.name: objective for objective in _ALL})


def get_objective(name: str, options: Mapping[str, float] | None = None) -> Objective:
    """The objective of that name, which must know all of `options`. Raises SetupError that lists what there is."""
    if name not in OBJECTIVES:
        raise SetupError(f"DMPO_ROUND__OBJECTIVE={name!r} is no objective; there are {', '.join(OBJECTIVES)}")
    objective = OBJECTIVES[name]
    if unknown := sorted(set(options or {}) - set(objective.options)):
        option_names = ", ".join(objective.options) or "none"
        raise SetupError(f"the objective {name} has no option {unknown[0]!r}; it has: {option_names}")
    return objective

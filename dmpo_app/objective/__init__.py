"""Preference objectives: pure functions of tensors. No I/O, no modules, nothing but torch.

An objective is a file that defines `OBJECTIVE` (a `margins.Objective`) and a line in `registry`; or a function of
one's own, given to `register`. `from dmpo_app import losses` is this package.
"""

from dmpo_app.objective.dmpo import dmpo
from dmpo_app.objective.guard import guarded
from dmpo_app.objective.margins import Needs, Objective, PairTerms, Residuals, margin
from dmpo_app.objective.ranking import ranking_dmpo, ranking_dmpo_from_margins, ranking_target
from dmpo_app.objective.registry import (
    OBJECTIVES,
    get_objective,
    load_installed,
    load_objective,
    register,
    unregister,
)
from dmpo_app.objective.targets import graded_win, mixed_target, score_target, soft_target

__all__ = [
    "OBJECTIVES",
    "Needs",
    "Objective",
    "PairTerms",
    "Residuals",
    "dmpo",
    "get_objective",
    "graded_win",
    "guarded",
    "load_installed",
    "load_objective",
    "margin",
    "mixed_target",
    "ranking_dmpo",
    "ranking_dmpo_from_margins",
    "ranking_target",
    "register",
    "score_target",
    "soft_target",
    "unregister",
]

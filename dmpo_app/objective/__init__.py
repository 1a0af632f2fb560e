"""Preference objectives: pure functions of tensors. No I/O, no modules, no globals, nothing but torch.

An objective is a file that defines `OBJECTIVE` (see `protocol`) and a line in `registry`.
"""

from dmpo_app.objective.dmpo import dmpo
from dmpo_app.objective.guard import guarded
from dmpo_app.objective.margins import margin
from dmpo_app.objective.protocol import Needs, Objective
from dmpo_app.objective.ranking import ranking_dmpo, ranking_dmpo_of_margins, ranking_target
from dmpo_app.objective.registry import OBJECTIVES, objective_named
from dmpo_app.objective.targets import graded_win, mixed_target, score_target, soft_target
from dmpo_app.objective.terms import PairTerms, Residuals

__all__ = [
    "OBJECTIVES",
    "Needs",
    "Objective",
    "PairTerms",
    "Residuals",
    "dmpo",
    "graded_win",
    "guarded",
    "margin",
    "mixed_target",
    "objective_named",
    "ranking_dmpo",
    "ranking_dmpo_of_margins",
    "ranking_target",
    "score_target",
    "soft_target",
]

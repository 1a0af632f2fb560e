"""Preference objectives: pure functions of tensors. No I/O, no modules, no globals, nothing but torch."""

from dmpo_app.objective.dmpo import dmpo
from dmpo_app.objective.margins import margin
from dmpo_app.objective.targets import soft_target

__all__ = ["dmpo", "margin", "soft_target"]

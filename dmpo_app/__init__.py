"""DMPO Studio: people say which of two images they prefer, and a diffusion model learns it while they watch.

    from dmpo_app import DMPOTrainer, DMPOConfig, load_preferences, losses    # docs/python.md
    from dmpo_app import Studio

Nothing is imported before one of these names is used.

Reading order: domain, objective/dmpo, training/loop, training/rounds/round_runner, diffusion/live_model,
rendering/render_thread, store/db, labeling/service, web/routes, ui, server/wiring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dmpo_app import objective as losses
    from dmpo_app.api import Callback, DMPOConfig, DMPOTrainer, Preferences, TrainingResult, load_preferences
    from dmpo_app.errors import StudioError
    from dmpo_app.server.run import Studio

__version__ = "0.1.0"
__all__ = [
    "Callback",
    "DMPOConfig",
    "DMPOTrainer",
    "Preferences",
    "Studio",
    "StudioError",
    "TrainingResult",
    "load_preferences",
    "losses",
]
_MODULES = {"Studio": "dmpo_app.server.run", "StudioError": "dmpo_app.errors", "losses": "dmpo_app.objective"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'dmpo_app' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(_MODULES.get(name, "dmpo_app.api"))
    return module if name == "losses" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

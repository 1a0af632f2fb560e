"""Training on preferences from Python: no home, no server, no settings from the environment.

    from dmpo_app import DMPOTrainer, DMPOConfig, load_preferences

    pairs = load_preferences("pick-a-pic.parquet")
    trainer = DMPOTrainer("pocket", pairs, DMPOConfig(num_steps=80, output_dir="out"))
    result = trainer.train()

`docs/python.md` is the guide. Errors that are meant for people are `StudioError`s.
"""

from dmpo_app.api.config import DMPOConfig
from dmpo_app.api.dmpo_trainer import Callback, DMPOTrainer, HeldOutEvaluation, Policy, TrainingResult
from dmpo_app.api.preferences import Preferences, load_preferences

__all__ = [
    "Callback",
    "DMPOConfig",
    "DMPOTrainer",
    "HeldOutEvaluation",
    "Policy",
    "Preferences",
    "TrainingResult",
    "load_preferences",
]

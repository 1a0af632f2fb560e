"""Labeling: sessions, consent, assignments, votes and prompts. No torch, no web framework."""

from dmpo_app.labeling.service import LabelingService
from dmpo_app.labeling.sign_in import Sealer, load_or_create_key

__all__ = ["LabelingService", "Sealer", "load_or_create_key"]

"""What annotators may do beside voting."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from dmpo_app.settings.group import Group


class LabelingSettings(Group):
    """What the campaign asks of annotators and lets them do."""

    free_prompts: bool = False
    """Annotators may add prompts of their own, which pairs are then made of; on the Before / after tab."""
    free_prompts_per_day: Annotated[int, Field(ge=1, le=10_000)] = 20
    """... at most so many within 24 hours, each of them."""
    free_prompt_length: Annotated[int, Field(ge=1, le=1000)] = 300
    """... of at most so many characters."""
    blocked_words: Path | None = None
    """A text file of words or phrases, one a line; prompts with any of them are refused, whole words, whatever their
    case or accents. For prompts of annotators and imports; None: nothing is blocked."""
    near_duplicate: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    """Prompts on both sides of the split may share less than this of their words (Jaccard similarity of the sets)."""

"""Settings of judging: duels between versions, and the way to the live version."""

from typing import Annotated, Literal

from pydantic import Field

from dmpo_app.settings.sections import SettingsGroup

JudgingMode = Literal["publish", "hold", "rollback"]


class JudgingSettings(SettingsGroup):
    """Judging of versions by people's duels, and how a new version becomes the live one."""

    mode: JudgingMode = "publish"
    """publish: a version goes live when its round is done; duels inform. hold: it goes live once duels or held-out
    votes prove it better than the live one. rollback: it goes live. In both the one before comes back if duels prove
    the live one worse."""
    duel_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of assignments on the Label tab that are duels, while there are any to be judged."""
    duels_ready: Annotated[int, Field(ge=0, le=10_000)] = 12
    """Duels made ahead, counted like the pool: those that nobody has judged or holds."""
    annotator_cap: Annotated[float, Field(gt=0, le=1)] = 0.05
    """The largest weight of one annotator in a test by duels, as a share; off while there are too few annotators for
    it, which the page then says."""
    effect_prompts: Annotated[int, Field(ge=0, le=1000)] = 16
    """Held-out prompts on which the effects of a new version are measured; 0: they are not."""
    effect_seeds: Annotated[int, Field(ge=1, le=16)] = 2
    """Seeds of each of these prompts."""

"""Settings of what votes count."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from dmpo_app.settings.group import Group

PUBLIC_SHARE = 0.05


class LabelingSettings(Group):
    """What the votes of an annotator count."""

    reliability: Literal["off", "dawid_skene"] = "off"
    """dawid_skene: in a round, an annotator's votes count by how far the others bear them out; the mean is 1, and 0 who
    clicks at random or against the others. off: every vote counts 1."""
    max_annotator_share: Literal["auto"] | Annotated[float, Field(gt=0, le=1)] | None = "auto"
    """What one annotator may weigh of all votes of a round; none: any share. auto: 0.05 in public mode, none
    otherwise."""

    @field_validator("max_annotator_share", mode="before")
    @classmethod
    def _none_in_words(cls, value: object) -> object:
        """Neither environment variables nor TOML can say None otherwise."""
        return None if isinstance(value, str) and value.lower() == "none" else value

    def annotator_share(self, *, public: bool) -> float | None:
        """The cap in force; None where there is none."""
        if self.max_annotator_share == "auto":
            return PUBLIC_SHARE if public else None
        return self.max_annotator_share

"""Effects of a version on images, measured against another version's, and its agreement with held-out votes."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

EffectUnit = Literal["percent", "points", "deviations"]
"""Unit of an effect's size. percent: of the other version's mean. points: hundredths of the measure's scale.
deviations: standard deviations between the other version's images."""


@dataclass(frozen=True, slots=True)
class EffectMeasure:
    """A measure of images that a version may move. `less` and `more`: words for an image that has less or more of it.

    `unit`: the unit that its effects are told in.
    """

    name: str
    less: str
    more: str
    unit: EffectUnit


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of a version on one measure. `words` are of the direction that the mean took, such as "darker"."""

    measure: str
    words: str
    moved: bool
    """Beyond chance: wrong for any of the measures in at most 5 % of comparisons in which nothing has changed."""
    p_value: float
    """Corrected for the number of measures."""
    num_agreeing: int
    """Images that moved in the direction of `words`."""
    size: float
    """The mean difference in `unit`, with its 95 % interval over prompts."""
    low: float
    high: float
    unit: EffectUnit
    deviations: float
    """The mean difference in standard deviations between the other version's images, to compare measures by."""


@dataclass(frozen=True, slots=True)
class PromptChange:
    """The change of a prompt's images; the seed and the images' ids are of the one that changed most."""

    prompt: str
    change: float
    """The mean absolute difference of pixels over the prompt's seeds, in percent of their range."""
    seed: int
    image_id: int
    other_image_id: int


@dataclass(frozen=True, slots=True)
class VersionEffects:
    """Effects of a version on images of the same prompts and seeds as another version's, the surest first."""

    measures: tuple[Effect, ...]
    prompts_changed_most: tuple[PromptChange, ...]
    num_images: int
    num_prompts: int
    mean_change: float
    """Over all images, as in `PromptChange.change`."""
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Serialize for the store."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        measures = tuple(Effect(**effect) for effect in values["measures"])
        changes = tuple(PromptChange(**change) for change in values["prompts_changed_most"])
        return cls(**{**values, "measures": measures, "prompts_changed_most": changes})


@dataclass(frozen=True, slots=True)
class VersionComparison:
    """The stored effects of a version against another one."""

    version: int
    other_version: int
    effects: VersionEffects


@dataclass(frozen=True, slots=True)
class HeldOutAgreement:
    """Agreement of a version with votes on held-out prompts: `num_agreeing` of `num_votes`."""

    num_agreeing: int
    num_votes: int

    @property
    def sentence(self) -> str:
        votes = "vote" if self.num_votes == 1 else "votes"
        return f"Agrees with {self.num_agreeing:,} of {self.num_votes:,} {votes} it has not seen."


def held_out_agreement(metrics: Mapping[str, float]) -> HeldOutAgreement | None:
    """Read the agreement from a version's metrics; None where it was not judged by votes.

    The gate's own count is the exact one; versions from before it have a share of pairs.
    """
    num_votes = int(metrics.get("gate_votes", metrics.get("held_out_votes", 0)))
    share = metrics.get("gate_agreement", metrics.get("held_out_accuracy"))
    if not num_votes or share is None or not math.isfinite(share):
        return None
    return HeldOutAgreement(math.floor(share * num_votes + 0.5), num_votes)


def say_what_was_learned(metrics: Mapping[str, float], sentences: Iterable[str]) -> list[str]:
    """The sentences about a version: its agreement with held-out votes, then those about its effects on images."""
    agreement = held_out_agreement(metrics)
    return [*sentences] if agreement is None else [agreement.sentence, *sentences]

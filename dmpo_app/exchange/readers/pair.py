"""What a row of preference data comes to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a row, or a pair of it, is left out. The values are what a person reads in the summary."""

    EMPTY_PROMPT = "no prompt"
    MISSING_LABEL = "no label"
    UNCLEAR_LABEL = "a label that is neither a choice nor a tie"
    NO_IMAGE = "no image bytes"
    BROKEN_IMAGE = "broken image"
    CRASHING_IMAGE = "an image that brings its decoder down"
    TOO_LARGE = "image of more than 20 megapixels"
    IDENTICAL_IMAGES = "identical images"
    BROKEN_ROW = "a row of another shape than its format has"


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """One judgement of two images of one prompt.

    `image_a` and `image_b` are whole files (PNG, JPEG or WebP) that have been decoded once to see that they can be.
    `wins_a` is 1 where a was preferred, 0 where b was, 0.5 for a tie. `num_votes` people, at least 1, said so.
    `source_id` names the row in its data set.
    """

    prompt: str
    image_a: bytes
    image_b: bytes
    wins_a: float
    num_votes: int
    source_id: str

    @property
    def is_tie(self) -> bool:
        return self.wins_a == 0.5


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A pair that cannot be used."""

    reason: Reason
    source_id: str

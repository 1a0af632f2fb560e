"""Judgements of duels, and the verdicts that are drawn from them.

A duel shows two versions' images of one prompt and seed; nobody who judges it can tell which version made which.
"""

from dataclasses import dataclass
from enum import StrEnum

from dmpo_app.domain.lineage import ImageRef, NewImage
from dmpo_app.domain.vote import Question


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions to be compared by duels: `version_a` is the one in question, `version_b` the one it is held to."""

    version_a: int
    version_b: int


@dataclass(frozen=True, slots=True)
class NewDuel:
    """A new duel: two versions' images of one prompt and seed; the versions are those of the images' provenance.

    `study_id`: the study it belongs to, if any.
    """

    prompt: str
    image_a: NewImage
    image_b: NewImage
    study_id: int | None = None


@dataclass(frozen=True, slots=True)
class Duel:
    """A stored duel; its pair is what people are assigned. `num_judgements`: its live votes of every kind."""

    pair_id: int
    prompt: str
    version_a: int
    version_b: int
    image_a: ImageRef
    image_b: ImageRef
    num_judgements: int
    study_id: int | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judgement of a duel: one annotator's answer about two versions' images of one prompt and seed."""

    annotator_id: int
    prompt: str
    version_a: int
    version_b: int
    score: float
    """1: version_a's image was preferred, 0: version_b's, 0.5: a tie."""
    question: Question = Question.OVERALL


class NoDuels(StrEnum):
    """The reason why a person has no duel to judge.

    NO_VERSION: there is no version to compare. MAKING: duels are being made. ALL_JUDGED: they have judged all there
    are, or as many people as are to have.
    """

    NO_VERSION = "no_version"
    MAKING = "making"
    ALL_JUDGED = "all_judged"


class Verdict(StrEnum):
    """The verdict of a test about a version against another one."""

    BETTER = "better"
    WORSE = "worse"
    UNSURE = "unsure"


class Evidence(StrEnum):
    """The evidence that a verdict rests on: held-out votes, cross-fitting over all votes, or people's duels."""

    HELD_OUT = "held_out"
    CROSS_FITTING = "cross_fitting"
    DUELS = "duels"


class VerdictAction(StrEnum):
    """The action that followed a verdict.

    PROMOTED: a version that was held back went live. ROLLED_BACK: a live one was replaced by the one before. REJECTED:
    one that was held back will not go live by itself. NONE: it was noted.
    """

    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    REJECTED = "rejected"
    NONE = "none"

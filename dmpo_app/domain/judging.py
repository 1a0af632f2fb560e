"""Judgements of duels, and the verdicts that are drawn from them.

A duel shows two versions' images of one prompt and seed; nobody who judges it can tell which version made which.
"""

from dataclasses import dataclass
from enum import StrEnum

from dmpo_app.domain.vote import Question


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


class Verdict(StrEnum):
    """The verdict of a test about a version against another one."""

    BETTER = "better"
    WORSE = "worse"
    UNSURE = "unsure"

"""Judgements of duels, and the verdicts that are drawn from them.

A duel shows two versions' images of one prompt and seed; nobody who judges it can tell which version made which.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from dmpo_app.domain.lineage import ImageRef, NewImage
from dmpo_app.domain.vote import Outcome, Question


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions to be compared by duels: `version_a` is the one in question, `version_b` the one it is held to."""

    version_a: int
    version_b: int


@dataclass(frozen=True, slots=True)
class NewDuel:
    """A new duel: two versions' images of one prompt and seed; the versions are those of the images' provenance."""

    prompt: str
    image_a: NewImage
    image_b: NewImage


@dataclass(frozen=True, slots=True)
class Duel:
    """A stored duel; its pair is what people are assigned.

    `num_judgements`: its live votes of every kind. `study_id`: the study it belongs to, if any.
    """

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

    PROMOTED: a version that was held back, or would have been, went live. ROLLED_BACK: a live one was replaced by the
    one before. REJECTED: one that was held back will not go live by itself. NONE: it was noted.
    """

    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    REJECTED = "rejected"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class NewVerdict:
    """A verdict about a version against another one that is to be acted on. `numbers`: of the test, for the record."""

    version: int
    other_version: int
    verdict: Verdict
    evidence: Evidence
    numbers: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VerdictRecord:
    """A verdict as it was recorded, with what was done."""

    id: int
    version: int
    other_version: int
    verdict: Verdict
    evidence: Evidence
    action: VerdictAction
    numbers: Mapping[str, Any]
    created_at: datetime


class VersionState(StrEnum):
    """The state of a version on its way to being live and after it.

    CANDIDATE: held back and judged now. SUPERSEDED: held back, and a newer one has taken its place. REJECTED: held back
    and proven worse. ROLLED_BACK: it was live and was proven worse. PAST: it was live, or is the base model.
    """

    LIVE = "live"
    CANDIDATE = "candidate"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"
    PAST = "past"

    @property
    def words(self) -> str:
        """The state in words; empty for a version that was live once, which says nothing."""
        return _STATE_WORDS[self]


_STATE_WORDS = {
    VersionState.LIVE: "live",
    VersionState.CANDIDATE: "held back, being judged",
    VersionState.SUPERSEDED: "held back; a newer version took its place",
    VersionState.REJECTED: "held back; proven worse",
    VersionState.ROLLED_BACK: "rolled back; proven worse",
    VersionState.PAST: "",
}


def version_name(version: int) -> str:
    """The name of a version in a sentence; version 0 is the base model."""
    return "the base model" if version == 0 else f"version {version}"


@dataclass(frozen=True, slots=True)
class DuelTest:
    """The state of a test of a candidate against another version, after any number of judgements.

    num_judgements: all that were given, ties among them. num_preferring: plain count of those for the candidate.
    is_capped: there are enough annotators for the cap, so the verdict is about people in general; else it is the
    judgement of those `num_annotators` alone. e_value_better, e_value_worse: the evidence, 1 at the start, a verdict at
    `judging.duel_test.DuelRules.threshold`. more_needed: judgements still missing at the present rate, 0 once there is
    a verdict, None where no number would do or it cannot be told.
    """

    verdict: Verdict
    num_judgements: int
    num_preferring: int
    num_ties: int
    num_annotators: int
    num_prompts: int
    is_capped: bool
    e_value_better: float
    e_value_worse: float
    more_needed: int | None

    @property
    def num_decided(self) -> int:
        """The judgements that are no ties."""
        return self.num_judgements - self.num_ties

    def sentence(self, candidate: int, other: int) -> str:
        """The state in words: "14 of 19 prefer version 3; about 20 more to be sure"."""
        if self.num_judgements == 0:
            return f"nobody has judged {version_name(candidate)} against {version_name(other)} yet"
        ties = "" if not self.num_ties else f" ({self.num_ties} tie{'s' if self.num_ties > 1 else ''} beside)"
        counts = f"{self.num_preferring} of {self.num_decided} prefer {version_name(candidate)}{ties}"
        return f"{counts}; {self._outlook(other)}{self._judges()}"

    def _outlook(self, other: int) -> str:
        if self.verdict is not Verdict.UNSURE:
            return f"{self.verdict.value} than {version_name(other)}"
        if self.more_needed is None:
            return "too close to tell"
        return f"about {self.more_needed} more to be sure"

    def _judges(self) -> str:
        """The people whose judgement it is, where that is not people in general."""
        if self.is_capped:
            return ""
        whose = "one person's" if self.num_annotators == 1 else f"{self.num_annotators} people's"
        return f" ({whose} judgement)"


@dataclass(frozen=True, slots=True)
class BoardRow:
    """A version on the board.

    score: the log odds of winning against the board's anchor, whose score is 0; low, high: its 95 % interval. win_rate,
    win_rate_low, win_rate_high: the same as a probability. All None where no chain of duels leads to the anchor, and
    the intervals where neither prompts nor annotators can be sampled anew.
    """

    version: int
    num_judgements: int
    score: float | None = None
    low: float | None = None
    high: float | None = None
    win_rate: float | None = None
    win_rate_low: float | None = None
    win_rate_high: float | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """The board of all versions that were judged, best first, those without a score at the end.

    anchor: the version whose score is 0: the base model, or where it was never judged the oldest version of the largest
    group of versions that met; None without judgements. disconnected: versions that no chain of duels leads to.
    """

    rows: tuple[BoardRow, ...]
    anchor: int | None
    num_judgements: int
    num_annotators: int
    num_prompts: int
    disconnected: tuple[int, ...] = ()


DUEL_SCORES: Mapping[Outcome, float] = {Outcome.A: 1.0, Outcome.TIE: 0.5, Outcome.B: 0.0}
"""The score of a duel's image a by the outcome of a vote on it."""


@dataclass(frozen=True, slots=True)
class StudyAnswer:
    """An answer in a human study: a judgement, and the pair of images it is about."""

    pair_id: int
    judgement: Judgement


class Majority(StrEnum):
    """The majority about a pair: the answer that more people gave than any other, else a tie."""

    A = "a"
    B = "b"
    TIE = "tie"


@dataclass(frozen=True, slots=True)
class StudyPair:
    """A pair of a study and the answers to one question about it."""

    question: Question
    pair_id: int
    prompt: str
    num_a: int
    num_b: int
    num_ties: int
    majority: Majority


@dataclass(frozen=True, slots=True)
class StudyResult:
    """The result of a study on one question, as seen from version a.

    wins, losses, ties: pairs by their majority. win_rate: wins of wins and losses, low and high its 95 % interval,
    clustered by prompt; None where all are ties. win_rate_ties_half: ties as half a win each. alpha: agreement of the
    people, Krippendorff's, with its interval; None where nothing can be compared.
    """

    question: Question
    num_pairs: int
    num_prompts: int
    num_answers: int
    num_annotators: int
    wins: int
    losses: int
    ties: int
    win_rate: float | None
    low: float | None
    high: float | None
    win_rate_ties_half: float | None
    alpha: float | None
    alpha_low: float | None
    alpha_high: float | None


@dataclass(frozen=True, slots=True)
class Study:
    """A human study between two versions: a result for every question that was asked, and the table of its pairs."""

    version_a: int
    version_b: int
    results: tuple[StudyResult, ...]
    pairs: tuple[StudyPair, ...]


@dataclass(frozen=True, slots=True)
class NewStudy:
    """The plan of a human study: `num_pairs` duels of two versions, each judged by `num_raters` people.

    Every question is asked about every pair.
    """

    name: str
    version_a: int
    version_b: int
    questions: tuple[Question, ...] = (Question.OVERALL, Question.APPEAL, Question.FIT)
    num_raters: int = 5
    num_pairs: int = 50


@dataclass(frozen=True, slots=True)
class OfferedStudy:
    """An open study that somebody is given duels of."""

    id: int
    plan: NewStudy


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study as it is stored. `num_made`: duels there are; `num_answers`: live votes on them, to every question."""

    id: int
    plan: NewStudy
    created_by: str
    created_at: datetime
    closed_at: datetime | None
    num_made: int
    num_answers: int

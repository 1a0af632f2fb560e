"""Request and response bodies about human studies between two versions."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from dmpo_app.domain.judging import NewStudy, StudyRecord, StudyResult
from dmpo_app.domain.vote import Question
from dmpo_app.web.api_models import example

_Version = Annotated[int, Field(ge=0, le=2**31 - 1, description="0 is the base model.")]


class StudyBody(BaseModel):
    model_config = example(name="3 against the base", version_a=3, version_b=0)

    name: Annotated[str, Field(min_length=1, max_length=80)]
    version_a: _Version
    version_b: _Version
    questions: Annotated[tuple[Question, ...], Field(min_length=1, max_length=len(Question))] = tuple(Question)
    raters: Annotated[int, Field(ge=1, le=100, description="People who judge each pair.")] = 5
    pairs: Annotated[int, Field(ge=1, le=10_000)] = 50

    @property
    def plan(self) -> NewStudy:
        """The plan of the study."""
        return NewStudy(self.name, self.version_a, self.version_b, self.questions, self.raters, self.pairs)


class StudyOut(StudyBody):
    model_config = example(
        name="3 against the base",
        version_a=3,
        version_b=0,
        questions=["overall"],
        raters=5,
        pairs=50,
        id=1,
        created_by="administrator",
        created_at="2026-01-31T12:00:00Z",
        closed_at=None,
        made=50,
        answers=120,
    )

    id: int
    created_by: str
    created_at: datetime
    closed_at: datetime | None = Field(description="Offered to nobody since then; null while it is open.")
    made: int = Field(description="Pairs that have been made so far.")
    answers: int = Field(description="Votes on them, to every question.")


class StudiesAnswer(BaseModel):
    studies: list[StudyOut] = Field(description="Oldest first.")


class StudyResultOut(BaseModel):
    question: Question
    pairs: int
    prompts: int
    answers: int
    annotators: int
    wins: int = Field(description="Pairs whose majority preferred version a's image.")
    losses: int
    ties: int
    win_rate: float | None = Field(description="Wins of wins and losses; null where all are ties.")
    low: float | None = Field(description="Of the 95 % interval, clustered by prompt.")
    high: float | None
    win_rate_ties_half: float | None = Field(description="Ties as half a win each.")
    agreement: float | None = Field(description="Krippendorff's alpha; null where nothing can be compared.")
    agreement_low: float | None
    agreement_high: float | None


class StudyAnswerBody(BaseModel):
    study: StudyOut
    results: list[StudyResultOut] = Field(description="One for each question that somebody has answered.")


def study_out(record: StudyRecord) -> StudyOut:
    """Describe a study in the terms of the API."""
    plan = record.plan
    return StudyOut(
        name=plan.name,
        version_a=plan.version_a,
        version_b=plan.version_b,
        questions=plan.questions,
        raters=plan.num_raters,
        pairs=plan.num_pairs,
        id=record.id,
        created_by=record.created_by,
        created_at=record.created_at,
        closed_at=record.closed_at,
        made=record.num_made,
        answers=record.num_answers,
    )


def result_out(result: StudyResult) -> StudyResultOut:
    """Describe the result of one question in the terms of the API."""
    return StudyResultOut(
        question=result.question,
        pairs=result.num_pairs,
        prompts=result.num_prompts,
        answers=result.num_answers,
        annotators=result.num_annotators,
        wins=result.wins,
        losses=result.losses,
        ties=result.ties,
        win_rate=result.win_rate,
        low=result.low,
        high=result.high,
        win_rate_ties_half=result.win_rate_ties_half,
        agreement=result.alpha,
        agreement_low=result.alpha_low,
        agreement_high=result.alpha_high,
    )

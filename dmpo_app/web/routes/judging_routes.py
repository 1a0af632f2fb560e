"""Routes of judging: the comparisons of versions by people's duels, what follows from them, and the board."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel, Field

from dmpo_app.domain.judging import BoardRow, Evidence, Verdict, VerdictAction, VerdictRecord
from dmpo_app.judging.service import ComparisonState, verdict_sentence
from dmpo_app.settings.judging_settings import JudgingMode
from dmpo_app.web.api_models import example
from dmpo_app.web.error_responses import StudioRoute
from dmpo_app.web.services import Coalesced, RequestLimiters, Services

MAX_VERDICTS = 20


class DuelComparisonOut(BaseModel):
    version: int
    other_version: int
    verdict: Verdict
    sentence: str = Field(description="The state in words; in brackets whose judgement it is, where they are few.")
    consequence: str = Field(description="What follows from it in the present mode.")
    num_judgements: int = Field(description="All that stand, ties among them.")
    num_preferring: int = Field(description="Those that prefer `version`.")
    num_ties: int
    num_annotators: int
    num_prompts: int
    is_capped: bool = Field(
        description="There are so many annotators that none weighs more than the cap: the verdict is about people in "
        "general, else about these alone."
    )
    more_needed: int | None = Field(description="Judgements that are missing at the present rate; null: too close.")


class RecordedVerdictOut(BaseModel):
    version: int
    other_version: int
    verdict: Verdict
    evidence: Evidence
    action: VerdictAction
    sentence: str
    created_at: datetime


class JudgingAnswer(BaseModel):
    model_config = example(
        mode="hold",
        live_version=2,
        candidate=3,
        comparisons=[
            {
                "version": 3,
                "other_version": 2,
                "verdict": "unsure",
                "sentence": "14 of 19 prefer version 3; about 20 more to be sure (4 people's judgement)",
                "consequence": "version 3 goes live once it is proven better",
                "num_judgements": 21,
                "num_preferring": 14,
                "num_ties": 2,
                "num_annotators": 4,
                "num_prompts": 12,
                "is_capped": False,
                "more_needed": 20,
            }
        ],
        verdicts=[],
    )

    mode: JudgingMode = Field(description="How a new version becomes the live one.")
    live_version: int
    candidate: int | None = Field(description="The version that is held back and judged now.")
    comparisons: list[DuelComparisonOut]
    verdicts: list[RecordedVerdictOut] = Field(description="What was decided, the newest first.")


class BoardRowOut(BaseModel):
    version: int
    num_judgements: int
    score: float | None = Field(description="Log odds of winning against the anchor, whose score is 0.")
    low: float | None = Field(description="Lower end of the score's 95 % interval over prompts and people.")
    high: float | None
    win_rate: float | None = Field(description="Chance of winning against the anchor, 0 to 1.")
    win_rate_low: float | None
    win_rate_high: float | None


class BoardAnswer(BaseModel):
    rows: list[BoardRowOut] = Field(description="Best first; those that no chain of duels compares come last.")
    anchor: int | None = Field(description="The base model, 0, or where nobody judged it another version.")
    num_judgements: int
    num_annotators: int
    num_prompts: int


def judging_router(services: Services, limiters: RequestLimiters) -> APIRouter:
    """Routes under /api/v1 about the comparison of versions."""
    router = APIRouter(route_class=StudioRoute, tags=["versions"])
    # Many open pages ask at a time, and a board takes a while to make: it takes one thread, not one a page.
    coalesced_judging = Coalesced(limiters.background, lambda: _judging(services))
    coalesced_board = Coalesced(limiters.background, lambda: _board(services))

    @router.get("/judging")
    async def judging() -> JudgingAnswer:
        """The versions that are compared now by people's duels, in numbers and words, and what was decided."""
        return await coalesced_judging.get()

    @router.get("/board")
    async def board() -> BoardAnswer:
        """All versions ranked by people's duels: Bradley-Terry scores with intervals."""
        return await coalesced_board.get()

    return router


def _judging(services: Services) -> JudgingAnswer:
    state = services.judging.state()
    records = services.store.verdicts.list(services.base, limit=MAX_VERDICTS)
    return JudgingAnswer(
        mode=state.mode,
        live_version=state.live_version,
        candidate=state.candidate,
        comparisons=[_comparison_out(comparison) for comparison in state.comparisons],
        verdicts=[_verdict_out(record) for record in records],
    )


def _comparison_out(comparison: ComparisonState) -> DuelComparisonOut:
    test = comparison.test
    return DuelComparisonOut(
        version=comparison.version,
        other_version=comparison.other_version,
        verdict=test.verdict,
        sentence=comparison.sentence,
        consequence=comparison.consequence,
        num_judgements=test.num_judgements,
        num_preferring=test.num_preferring,
        num_ties=test.num_ties,
        num_annotators=test.num_annotators,
        num_prompts=test.num_prompts,
        is_capped=test.is_capped,
        more_needed=test.more_needed,
    )


def _verdict_out(record: VerdictRecord) -> RecordedVerdictOut:
    return RecordedVerdictOut(
        version=record.version,
        other_version=record.other_version,
        verdict=record.verdict,
        evidence=record.evidence,
        action=record.action,
        sentence=verdict_sentence(record),
        created_at=record.created_at,
    )


def _board(services: Services) -> BoardAnswer:
    board = services.judging.board()
    return BoardAnswer(
        rows=[_row_out(row) for row in board.rows],
        anchor=board.anchor,
        num_judgements=board.num_judgements,
        num_annotators=board.num_annotators,
        num_prompts=board.num_prompts,
    )


def _row_out(row: BoardRow) -> BoardRowOut:
    return BoardRowOut(
        version=row.version,
        num_judgements=row.num_judgements,
        score=row.score,
        low=row.low,
        high=row.high,
        win_rate=row.win_rate,
        win_rate_low=row.win_rate_low,
        win_rate_high=row.win_rate_high,
    )

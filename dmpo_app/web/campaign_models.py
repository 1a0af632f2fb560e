"""Request and response bodies about taking part: own votes, agreements, reports, gold pairs, the audit log."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from dmpo_app.domain.campaign import ReportReason
from dmpo_app.domain.vote import Choice, Outcome, Question, Strength
from dmpo_app.web.api_models import NonEmptyText, Remark, example


class AgreementOut(BaseModel):
    version: str
    sha256: str = Field(description="Of the text as UTF-8.")
    at: datetime
    text: str | None = Field(description="What you agreed to; null: before texts were kept.")


class OwnCounts(BaseModel):
    live: int = Field(description="Votes that stand.")
    undone: int
    withdrawn: int
    by_question: dict[Question, int] = Field(description="Those that stand, by question.")


class TrainedVersion(BaseModel):
    version: int
    votes: int = Field(description="How many of your votes it was trained on.")


class MeAnswer(BaseModel):
    model_config = example(
        annotator="an_5fK2",
        handle="Ada",
        signed_in=False,
        votes={"live": 41, "undone": 2, "withdrawn": 0, "by_question": {"overall": 41}},
        trained=[{"version": 3, "votes": 32}],
        agreements=[],
    )

    annotator: str
    handle: str
    signed_in: bool = Field(description="Whether a sign-in provider vouched for you.")
    votes: OwnCounts
    trained: list[TrainedVersion] = Field(description="The versions your votes went into, oldest first.")
    agreements: list[AgreementOut] = Field(description="What you agreed to, oldest first.")


class OwnVote(BaseModel):
    vote: int
    prompt: str
    left: str = Field(description="URL of the image that stood on the left; expires.")
    right: str
    more: list[str] = Field(description="Of a ranking: the images that stood after the first two.")
    order: list[int] | None = Field(description="Of a ranking: the images' places, 0 the first, best first.")
    question: Question
    choice: Choice
    strength: Strength | None
    comment: str | None
    elapsed_ms: int
    at: datetime
    undone_at: datetime | None
    withdrawn_at: datetime | None
    versions: list[int] = Field(description="The versions that were trained on it.")


class OwnVotesAnswer(BaseModel):
    votes: list[OwnVote] = Field(description="Newest first.")
    next: int | None = Field(description="Ask again with `before` set to this for older ones; null at the end.")


class WithdrawAnswer(BaseModel):
    model_config = example(withdrawn=41, votes_until_round=32, versions=[2, 3])

    withdrawn: int = Field(description="Votes withdrawn now; 0 when they did not stand any more.")
    votes_until_round: int
    versions: list[int] = Field(
        description="The versions that learned from votes of yours that you took back, now or earlier. They are named "
        "as such; the live one is replaced by the next that is published."
    )


class ConsentAnswer(BaseModel):
    needed: bool = Field(description="Whether votes wait for your agreement.")
    text: str | None = Field(description="What is agreed to; plain text. null: nothing here.")
    version: str | None
    sha256: str | None
    agreed_at: datetime | None = Field(description="When you agreed to this text, with a session's token.")


class ConsentBody(BaseModel):
    model_config = example(sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")

    sha256: Annotated[str, Field(strict=True, pattern="^[0-9a-f]{64}$")] = Field(
        description="Of the text you read, as GET /consent gave it: nobody agrees to a text they have not seen."
    )


AnnotatorName = Annotated[NonEmptyText, Field(strict=True, max_length=64)]
"""The public id of an annotator, or the name that the quality report has for them."""


class ReportBody(BaseModel):
    model_config = example(assignment="as_x8Jw", reason="broken", text="the right one is black")

    assignment: Annotated[NonEmptyText, Field(strict=True, max_length=200)]
    reason: ReportReason
    text: Remark | None = None


class ReportAnswer(BaseModel):
    model_config = example(report=3, retired=True)

    report: int
    retired: bool = Field(description="Whether the pair is out of the pool for everybody now.")


class ReportOut(BaseModel):
    id: int
    pair: int
    annotator: str
    reason: ReportReason
    text: str | None
    at: datetime
    cleared_at: datetime | None
    cleared_by: str | None
    confirmed_at: datetime | None
    confirmed_by: str | None
    retired: bool = Field(description="Whether the pair is out of the pool and its votes do not count.")
    hidden: bool = Field(description="Whether the pair is out of the pool, while its votes go on counting.")
    prompt: str
    images: list[str] = Field(description="URLs of the pair's two images; they expire.")


class ReportsAnswer(BaseModel):
    reports: list[ReportOut] = Field(description="Newest first.")
    next: int | None = Field(description="Ask again with `before` set to this for older ones; null at the end.")


class DamagedPairOut(BaseModel):
    pair: int
    prompt: str
    lost: Literal["images", "tensors"] = Field(
        description="images: out of the pool until they are whole; tensors: not trained on until it is encoded again."
    )
    since: datetime | None = Field(description="When the images were found damaged.")


class DamageAnswer(BaseModel):
    out_of_pool: int = Field(description="Pairs out of the pool since an image of theirs is missing or damaged.")
    pairs: list[DamagedPairOut] = Field(description="The first hundred of either kind.")


class ClearReportsBody(BaseModel):
    model_config = example(annotator="5f2a77c01b9e")

    annotator: AnnotatorName | None = Field(description="Whose; null: everybody's.")


class ClearReportsAnswer(BaseModel):
    model_config = example(cleared=64)

    cleared: int = Field(description="How many were open; confirmed ones stay.")


class StruckOut(BaseModel):
    model_config = example(
        annotator="an_5fK2", struck_at="2026-01-01T12:00:00Z", votes=640, reports=6, prompts=2, votes_until_round=32
    )

    annotator: str = Field(description="Public id; they can be restored by it.")
    struck_at: datetime
    votes: int = Field(description="Votes of theirs that count no more.")
    reports: int = Field(description="Open reports of theirs that ask for nothing any more.")
    prompts: int = Field(description="Prompts they proposed that were retired by this.")
    votes_until_round: int


class RestoredOut(BaseModel):
    model_config = example(votes_until_round=12)

    votes_until_round: int


class GoldBody(BaseModel):
    model_config = example(answer="a")

    answer: Literal["a", "b", "tie"] = Field(description="The better image; a is the one that was made first.")


class GoldOut(BaseModel):
    model_config = example(pair=12, answer="a", prompt="a red boat on a beach", images=["/api/v1/images/gAAA"])

    pair: int
    answer: Outcome
    prompt: str
    images: list[str] = Field(description="URLs of image a and image b; they expire.")


class GoldAnswer(BaseModel):
    gold: list[GoldOut] = Field(description="Oldest pair first.")


class AuditOut(BaseModel):
    id: int
    at: datetime
    actor: str = Field(description="administrator (by token), administrator NAME (signed in) or cli.")
    act: str
    subject: str


class AuditAnswer(BaseModel):
    acts: list[AuditOut] = Field(description="Newest first.")
    next: int | None = Field(description="Ask again with `before` set to this for older ones; null at the end.")

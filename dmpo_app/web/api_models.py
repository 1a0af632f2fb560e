"""Request and response bodies of the JSON API, as OpenAPI documents them.

Bodies are strict about types and bounded everywhere, so that nothing a caller sends reaches the store unchecked: text
without control characters or lone surrogates, integers within 64 bits, finite floats. Unknown fields are ignored.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from dmpo_app.domain.judging import NoDuels, Verdict, VersionState
from dmpo_app.domain.limits import MAX_GUIDANCE, MAX_HANDLE, MAX_SEED, MAX_STRENGTH, MAX_VERSION
from dmpo_app.domain.lineage import RoundStatus, Trigger
from dmpo_app.domain.prompt import MAX_PROMPT
from dmpo_app.domain.vote import MAX_SET, Choice, Question, Strength
from dmpo_app.labeling.text_checks import MAX_COMMENT
from dmpo_app.settings import Mode

INT64_MAX = 2**63 - 1


def _plain(text: str) -> str:
    """Refuse control characters and lone surrogates.

    No prompt or name needs control characters, and NUL ends a string in some databases. JSON can hold lone surrogates,
    UTF-8 cannot, so they would fail wherever text is encoded.
    """
    if any((ord(c) < 32 and c not in "\t\n\r") or "\x7f" <= c <= "\x9f" for c in text):
        raise ValueError("control characters are not allowed")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("lone surrogates are not allowed")
    return text.strip()


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return text


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be finite")
    return value


def _number(value: Any) -> Any:
    """Accept JSON numbers only: no booleans, no strings."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    return value


def _integral(value: Any) -> Any:
    """Accept 3.0 as 3: JSON has one kind of number, and an integer of its schemas may be written so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_NO_CONTROLS = r"[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]"
_VISIBLE = r"[^\s\u0000-\u001f\u007f-\u009f]"
PlainText = Annotated[str, AfterValidator(_plain), Field(json_schema_extra={"pattern": f"^{_NO_CONTROLS}*$"})]
NonEmptyText = Annotated[
    str,
    AfterValidator(_plain),
    AfterValidator(_not_empty),
    Field(
        json_schema_extra={
            "pattern": rf"^{_NO_CONTROLS}*{_VISIBLE}{_NO_CONTROLS}*$",
            "minLength": 1,
        }
    ),
]
Remark = Annotated[PlainText, Field(strict=True, max_length=MAX_COMMENT)]
Prompt = Annotated[NonEmptyText, Field(strict=True, max_length=MAX_PROMPT)]
Integral = BeforeValidator(_integral)
# Bounds stand before the validators: behind them they would be checked and not described.
Place = Annotated[int, Field(strict=True, ge=0, lt=MAX_SET), Integral]
Version = Annotated[int, Field(strict=True, ge=0, le=MAX_VERSION), Integral]
_FINITE = (BeforeValidator(_number), AfterValidator(_finite))


def example(rules: Mapping[str, Any] | None = None, /, **fields: Any) -> ConfigDict:
    """A model's configuration: an example for the OpenAPI page, and `rules` of its schema that no type expresses."""
    return ConfigDict(json_schema_extra={"examples": [fields], **(rules or {})})


class Problem(BaseModel):
    """Error body of every route. `code` is for programs, `detail` for people."""

    model_config = example(detail="This pair expired; ask for a new one.", code="expired")

    detail: str
    code: str
    errors: list[str] | None = Field(default=None, description="With 422: what is wrong, one line a field.")


class SessionBody(BaseModel):
    model_config = example(handle="Ada")

    handle: Annotated[PlainText, Field(strict=True, max_length=MAX_HANDLE)] = Field(
        default="", description="A name to be remembered by; not a credential, need not be unique. Empty: anonymous."
    )
    invite: Annotated[PlainText, Field(strict=True, max_length=1000)] | None = Field(
        default=None, description="The token of a link of invitation, where the studio is open by invitation only."
    )


class SessionAnswer(BaseModel):
    model_config = example(annotator="an_5fK2", token="gAAAAAB...")

    annotator: str = Field(description="Public id of this annotator.")
    token: str = Field(description="Send it as `Authorization: Bearer <token>`. Stays valid over restarts.")


class AssignmentOut(BaseModel):
    id: str
    prompt: str
    left: str = Field(description="URL of the image to show on the left; expires with the assignment.")
    right: str
    more: list[str] = Field(description="Of a set to be ranked: the images after the first two; empty for a pair.")
    question: Question
    asks: list[Literal["strength", "comment"]] = Field(description="What the campaign would like to know beside.")
    expires_at: datetime


class AssignmentsAnswer(BaseModel):
    model_config = example(
        assignments=[
            {
                "id": "as_x8Jw",
                "prompt": "a red boat on a beach",
                "left": "/api/v1/images/gAAAA...",
                "right": "/api/v1/images/gAAAB...",
                "more": [],
                "question": "overall",
                "asks": [],
                "expires_at": "2026-01-01T12:00:00Z",
            }
        ],
        no_duels=None,
    )

    assignments: list[AssignmentOut] = Field(description="Empty while no pair has been made yet.")
    no_duels: NoDuels | None = Field(description="Why there are none, where duels alone were asked for.")


class VoteBody(BaseModel):
    model_config = example(
        {"oneOf": [
            {"required": ["choice"], "properties": {"choice": {"enum": ["left", "right"]}, "order": {"type": "null"}}},
            {"required": ["choice"], "properties": {
                "choice": {"enum": ["tie", "both_bad", "skip"]}, "order": {"type": "null"}, "strength": {"type": "null"}
            }},
            {"required": ["order"], "properties": {
                "choice": {"type": "null"}, "order": {"type": "array"}, "strength": {"type": "null"}
            }},
        ]},
        assignment="as_x8Jw", choice="left", elapsed_ms=1840,
    )  # fmt: skip

    assignment: Annotated[NonEmptyText, Field(strict=True, max_length=200)]
    choice: Choice | None = Field(default=None, description="The vote on a pair; of a set, skip or both_bad only.")
    order: Annotated[list[Place], Field(min_length=3, max_length=MAX_SET)] | None = Field(
        default=None, description="The vote on a set: the places of its images as shown, 0 the first, best first."
    )
    elapsed_ms: Annotated[int, Field(strict=True, ge=0, le=INT64_MAX), Integral] = Field(
        default=0, description="From showing the pair to the vote; values over a day count as a day."
    )
    strength: Strength | None = Field(default=None, description="How clear the preference is; with left or right only.")
    comment: Remark | None = Field(default=None, description="A remark on it; plain text.")

    @model_validator(mode="after")
    def _check_choice_or_order(self) -> Self:
        if (self.choice is None) == (self.order is None):
            raise ValueError("a vote is either a choice, for a pair, or an order, for a set of images")
        if self.order is not None and self.strength is not None:
            raise ValueError("a strength goes with a choice, not with an order")
        return self


class VoteAnswer(BaseModel):
    model_config = example(vote=41, votes_until_round=23)

    vote: int
    votes_until_round: int


class UndoAnswer(BaseModel):
    model_config = example(vote=41, undone=True, votes_until_round=24)

    vote: int
    undone: Literal[True] = True
    votes_until_round: int


class RoundOut(BaseModel):
    id: int
    status: RoundStatus
    trigger: Trigger = Field(description="What started it; withdrawal: votes that were taken back.")
    step: int
    steps: int
    loss: float | None
    margin: float | None = Field(description="Mean u: how far the policy moved towards the voters' choices.")
    accuracy: float | None = Field(description="Share of pairs on the voters' side, 0 to 1.")
    eta_seconds: float | None
    votes: int = Field(description="Votes this round learns from.")
    attempts: int
    parent_version: int
    adapter_version: int | None
    reason: str | None = Field(description="Why it was refused or failed, or which version it replaces and why.")
    created_at: datetime
    finished_at: datetime | None


class LastRoundOut(BaseModel):
    id: int
    status: RoundStatus
    reason: str | None
    adapter_version: int | None


class RendererOut(BaseModel):
    phase: Literal["starting", "loading", "ready", "failed", "stopped"]
    message: str
    pending: int
    device: str | None


class TrainerOut(BaseModel):
    running: bool = Field(description="It lives and has given a sign of life lately.")
    restarts: int
    message: str
    phase: str = Field("", description="What it is at: waiting, training, loading, evaluating, ...")


class EncodingOut(BaseModel):
    done: int
    total: int


class StatusAnswer(BaseModel):
    votes: int
    votes_until_round: int
    min_votes: int = Field(description="New votes that start a round.")
    pool: int = Field(description="Pairs nobody has judged yet.")
    live_version: int = Field(description="0 is the base model.")
    round: RoundOut | None = Field(description="The round that is queued or running.")
    last_round: LastRoundOut | None = Field(description="The round that finished last.")
    last_error: str | None
    encoding: EncodingOut | None = Field(None, description="Of imported pairs, while some have no latents.")
    storage: str | None = Field(None, description="Why the disk takes no more, or soon will not: votes are at risk.")
    renderer: RendererOut
    trainer: TrainerOut
    mode: Mode = Field(description="The processor alone, a GPU of its own, or GPUs lent by people (ZeroGPU).")


class VerdictOut(BaseModel):
    outcome: Verdict = Field(description="The gate's: against the version before it, by held-out votes.")
    sentence: str = Field(description="The verdict, for people.")
    caution: str = Field(description="How often such votes would err, for people.")


class AdapterOut(BaseModel):
    version: int
    parent: int | None = Field(description="The version it was trained from; null for the base model.")
    live: bool
    state: VersionState = Field(
        description="candidate: held back and judged now; superseded: held back, a newer one took its place; rejected: "
        "held back and proven worse; rolled_back: proven worse after it was live; past: neither live nor any of these."
    )
    state_words: str = Field(description="The state in words; empty for past.")
    votes: int
    taken_back: int = Field(
        description="Votes it learned from that were taken back since, or count no more: of struck annotators, on "
        "retired pairs. The next version that is published leaves them out."
    )
    proven: bool = Field(description="Judged on enough held-out votes.")
    verdict: VerdictOut | None = Field(description="Null where there was nothing to judge by.")
    metrics: dict[str, float | None]
    created_at: datetime | None
    download: str | None = Field(description="URL of its weights, for plain diffusers.")
    learned: list[str] = Field(
        description="What it learned, in sentences: agreement with votes it has not seen, and its effects on images."
    )


class AdaptersAnswer(BaseModel):
    live_version: int
    adapters: list[AdapterOut] = Field(description="By version; the base model, 0, comes first.")


class LiveAnswer(BaseModel):
    model_config = example(live_version=2)

    live_version: int


class RoundsAnswer(BaseModel):
    rounds: list[RoundOut]


class ProgressPoint(BaseModel):
    step: int
    loss: float | None
    margin: float | None
    accuracy: float | None
    held_out_loss: float | None
    health: dict[str, float] = Field(
        description="What else is watched, by name: chosen_gain, rejected_gain (the base model's error less the "
        "adapter's), past_target (a share), grad_norm, adapter_norm, adapter_rms and, at every evaluation, "
        "saturation, contrast, sharpness, diversity (over the base model's)."
    )


class ProgressAnswer(BaseModel):
    round: int
    points: list[ProgressPoint]


class HourOut(BaseModel):
    hour: datetime
    votes: int


class HistoryAnswer(BaseModel):
    hours: list[HourOut] = Field(description="Live votes an hour, oldest first; hours without votes are left out.")


class RenderBody(BaseModel):
    model_config = example(prompt="a blue cat in a forest", seed=7, versions=[0, 2])

    prompt: Prompt
    seed: Annotated[int, Field(strict=True, ge=0, le=MAX_SEED), Integral]
    versions: Annotated[list[Version], Field(min_length=1, max_length=4)]
    strength: Annotated[float, Field(ge=0, le=MAX_STRENGTH), *_FINITE] = Field(
        default=1.0, description="How much of the adapter."
    )
    steps: Annotated[int, Field(strict=True, ge=1, le=100), Integral] | None = None
    guidance: Annotated[float, Field(ge=0, le=MAX_GUIDANCE), *_FINITE] | None = None


class RenderedOut(BaseModel):
    version: int = Field(description="The version it was really made with.")
    url: str
    withheld: bool = Field(description="The model's safety checker flagged the image; a black one is in its place.")


class RenderAnswer(BaseModel):
    model_config = example(
        images=[
            {"version": 0, "url": "/api/v1/images/gA...", "withheld": False},
            {"version": 2, "url": "/api/v1/images/gB...", "withheld": False},
        ]
    )

    images: list[RenderedOut] = Field(description="In the order asked.")


class SheetImage(BaseModel):
    prompt: str
    seed: int
    url: str


class SheetRow(BaseModel):
    version: int
    images: list[SheetImage]


class SheetAnswer(BaseModel):
    rows: list[SheetRow] = Field(description="By version; the same prompts and seeds in every row that is complete.")

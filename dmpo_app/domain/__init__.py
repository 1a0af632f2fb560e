"""Frozen values that cross layers, and the protocols through which upper layers reach lower ones.

One file a subject; everybody imports from here. Times are timezone-aware UTC.
"""

from dmpo_app.domain.campaign import Agreement, AuditEntry, Invite, Report, ReportReason
from dmpo_app.domain.images import ImageKind, ImageRef, NewImage, NewPair, Pair, PairSource, Prompt, Provenance
from dmpo_app.domain.lineage import BASE_VERSION, AdapterRef, BaseModelRef, LiveChange, NewAdapter, Sampling
from dmpo_app.domain.rendering import RenderedImage, Renderer, RendererState, RenderRequest
from dmpo_app.domain.rounds import (
    NewVotes,
    RoundProgress,
    RoundState,
    RoundStatus,
    TrainerState,
    TrainerSupervisor,
    TrainingPair,
    TrainingVote,
    Trigger,
)
from dmpo_app.domain.status import StudioStatus
from dmpo_app.domain.votes import (
    PREFERENCES,
    STRENGTHS,
    Annotator,
    Assignment,
    Choice,
    Outcome,
    Question,
    Strength,
    TakenVote,
    VoteCounts,
    VoteRecord,
    outcome_of,
)

__all__ = [
    "BASE_VERSION",
    "PREFERENCES",
    "STRENGTHS",
    "AdapterRef",
    "Agreement",
    "Annotator",
    "Assignment",
    "AuditEntry",
    "BaseModelRef",
    "Choice",
    "ImageKind",
    "ImageRef",
    "Invite",
    "LiveChange",
    "NewAdapter",
    "NewImage",
    "NewPair",
    "NewVotes",
    "Outcome",
    "Pair",
    "PairSource",
    "Prompt",
    "Provenance",
    "Question",
    "RenderRequest",
    "RenderedImage",
    "Renderer",
    "RendererState",
    "Report",
    "ReportReason",
    "RoundProgress",
    "RoundState",
    "RoundStatus",
    "Sampling",
    "Strength",
    "StudioStatus",
    "TakenVote",
    "TrainerState",
    "TrainerSupervisor",
    "TrainingPair",
    "TrainingVote",
    "Trigger",
    "VoteCounts",
    "VoteRecord",
    "outcome_of",
]

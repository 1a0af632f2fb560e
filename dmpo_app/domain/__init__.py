"""Frozen values that cross layers, and the protocols through which upper layers reach lower ones.

One file a subject; everybody imports from here. Times are timezone-aware UTC.
"""

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
from dmpo_app.domain.votes import PREFERENCES, Annotator, Assignment, Choice, Outcome, Question, TakenVote, outcome_of

__all__ = [
    "BASE_VERSION",
    "PREFERENCES",
    "AdapterRef",
    "Annotator",
    "Assignment",
    "BaseModelRef",
    "Choice",
    "ImageKind",
    "ImageRef",
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
    "RoundProgress",
    "RoundState",
    "RoundStatus",
    "Sampling",
    "StudioStatus",
    "TakenVote",
    "TrainerState",
    "TrainerSupervisor",
    "TrainingPair",
    "TrainingVote",
    "Trigger",
    "outcome_of",
]

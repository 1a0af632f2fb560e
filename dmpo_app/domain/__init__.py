"""Frozen values that cross layers, and the protocols through which upper layers reach lower ones.

One file a subject; everybody imports from here. Times are timezone-aware UTC.
"""

from dmpo_app.domain.images import ImageKind, ImageRef, NewImage, NewPair, Pair, PairSource, Prompt, Provenance
from dmpo_app.domain.lineage import BASE_VERSION, AdapterRef, BaseModelRef, LiveChange, NewAdapter, Sampling
from dmpo_app.domain.prompts import (
    ImportPlan,
    KnownPrompt,
    NewPrompt,
    PromptCounts,
    PromptEntry,
    PromptPage,
    PromptQuery,
    PromptSnapshot,
    PromptSource,
    PromptsState,
    Refusal,
    RefusedPrompt,
    SuggestedPrompt,
)
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
    "ImportPlan",
    "KnownPrompt",
    "LiveChange",
    "NewAdapter",
    "NewImage",
    "NewPair",
    "NewPrompt",
    "NewVotes",
    "Outcome",
    "Pair",
    "PairSource",
    "Prompt",
    "PromptCounts",
    "PromptEntry",
    "PromptPage",
    "PromptQuery",
    "PromptSnapshot",
    "PromptSource",
    "PromptsState",
    "Provenance",
    "Question",
    "Refusal",
    "RefusedPrompt",
    "RenderRequest",
    "RenderedImage",
    "Renderer",
    "RendererState",
    "RoundProgress",
    "RoundState",
    "RoundStatus",
    "Sampling",
    "StudioStatus",
    "SuggestedPrompt",
    "TakenVote",
    "TrainerState",
    "TrainerSupervisor",
    "TrainingPair",
    "TrainingVote",
    "Trigger",
    "outcome_of",
]

"""The report of one lineage, from its store."""

from __future__ import annotations

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.labeling.quality.names import hashed_names
from dmpo_app.labeling.quality.quality_report import QualityReport, quality_report
from dmpo_app.labeling.quality.vote_weights import VoteWeighing
from dmpo_app.labeling.tokens import load_or_create_key
from dmpo_app.settings import Settings
from dmpo_app.store import Store


def report_of(store: Store, base: BaseModelRef, settings: Settings) -> QualityReport:
    """How good the live votes of a lineage are, on the question that rounds learn from.

    Annotators go by hashed names. About 2 s for 100,000 votes. Raises SetupProblem when the home's key is damaged.
    """
    votes = store.vote_records.all(base, question=settings.labeling.training_question)
    names = hashed_names(load_or_create_key(store.home), store.vote_records.public_ids(base))
    return quality_report(votes, name_of=names, weighing=weighing_of(settings), gold=store.gold.answers(base))


def weighing_of(settings: Settings) -> VoteWeighing:
    """How rounds weigh votes under these settings."""
    labeling = settings.labeling
    return VoteWeighing(labeling.reliability, labeling.annotator_share(public=settings.public))

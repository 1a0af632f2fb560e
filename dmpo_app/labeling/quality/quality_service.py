"""The report of one lineage, from its store."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.labeling.quality.quality_report import QualityReport, quality_report
from dmpo_app.labeling.quality.vote_weights import VoteWeighing
from dmpo_app.labeling.tokens import load_or_create_key
from dmpo_app.settings import Settings
from dmpo_app.store import Store

_PURPOSE = b"quality report:"
_LENGTH = 12


def hashed_names(key: bytes, public_ids: Mapping[int, str]) -> Callable[[int], str]:
    """The name of an annotator by internal id: 12 hexadecimal digits of HMAC-SHA256 under the home's key.

    Without the key nobody can tell which annotator it is, not even one who knows all public ids.
    """

    def name_of(annotator_id: int) -> str:
        public_id = public_ids[annotator_id]
        return hmac.new(key, _PURPOSE + public_id.encode(), hashlib.sha256).hexdigest()[:_LENGTH]

    return name_of


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

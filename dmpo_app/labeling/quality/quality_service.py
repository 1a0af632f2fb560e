"""The quality report of one lineage, from its store."""

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


def make_name_hasher(key: bytes, public_ids: Mapping[int, str]) -> Callable[[int], str]:
    """Make a function from an annotator's id to a pseudonym: 12 hex digits of HMAC-SHA256 under the home's key.

    Without the key nobody can tell which annotator it is, not even one who knows all public ids.
    """

    def hashed_name(annotator_id: int) -> str:
        public_id = public_ids[annotator_id]
        return hmac.new(key, _PURPOSE + public_id.encode(), hashlib.sha256).hexdigest()[:_LENGTH]

    return hashed_name


def build_report(store: Store, base: BaseModelRef, settings: Settings) -> QualityReport:
    """Build the quality report of a lineage's live votes on the question that rounds learn from.

    Annotators go by pseudonyms. About 2 s for 100,000 votes. Raises SetupError when the home's key is damaged.
    """
    votes = store.vote_records.all(base, question=settings.labeling.training_question)
    names = make_name_hasher(load_or_create_key(store.home), store.vote_records.public_ids(base))
    return quality_report(
        votes, annotator_name=names, weighing=weighing_from_settings(settings), gold=store.gold.right_outcomes(base)
    )


def weighing_from_settings(settings: Settings) -> VoteWeighing:
    """The weighing of votes in rounds under these settings."""
    labeling = settings.labeling
    return VoteWeighing(labeling.reliability, labeling.annotator_share(public=settings.public))

"""Which round to work on now: the one that is not over, or a new one when it is time."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.round import RoundState, Trigger
from dmpo_app.errors import Conflict
from dmpo_app.settings import Settings
from dmpo_app.store import Store

_log = logging.getLogger(__name__)


def next_round(store: Store, base: BaseModelRef, settings: Settings, now: datetime) -> RoundState | None:
    """The lineage's queued or running round, else one that is requested here because votes are in; None otherwise."""
    current = store.rounds.current(base)
    if current is not None:
        return current
    trigger = _due(store, base, settings, now)
    if trigger is None:
        return None
    try:
        return store.rounds.request(base, trigger, question=settings.labeling.training_question)
    except Conflict as error:  # an administrator's request or an undone vote came in between
        _log.info("no round is started: %s", error)
        return None


def _due(store: Store, base: BaseModelRef, settings: Settings, now: datetime) -> Trigger | None:
    new = store.votes.new_preferences(base, question=settings.labeling.training_question)
    if new.count >= settings.min_votes:
        return Trigger.VOTES
    trainer = settings.trainer
    if trainer.period_minutes is None or new.oldest_at is None or new.count < trainer.period_min_votes:
        return None
    waited = now - new.oldest_at
    return Trigger.PERIOD if waited >= timedelta(minutes=trainer.period_minutes) else None

"""Withdrawals: rounds that replace a version which learned from votes that were taken back since.

What counts as taken back says `store.voting.taken_back`. Such a round begins without the weights of the version it
replaces, and its version goes live even if the held-out votes find it somewhat worse: what people agree to comes
first. If they find it clearly worse, or the round fails, the newest version that learned from no such vote comes back.
"""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dmpo_app.domain.judging import version_name
from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef, NewPreferences, Trigger
from dmpo_app.settings import RoundSettings, Settings
from dmpo_app.store import Store
from dmpo_app.store.rounds import MIN_PREFERENCES
from dmpo_app.store.voting.taken_back import EVER

_log = logging.getLogger(__name__)

_REPLACES = "replaces"
"""Key in a round's config: the version that it replaces, and how many of its votes are gone."""


def answer_withdrawals(store: Store, base: BaseModelRef, settings: Settings, new: NewPreferences) -> bool:
    """Decide if a round is due because enough votes of the live version, or of one held back, were taken back.

    With too few votes left to train one, the live version goes back to the newest that learned from none of them.
    After one such round, whatever came of it, another is due only once as many votes were taken back again, or some new
    ones have come.
    """
    threshold = settings.trainer.withdrawn_votes
    if threshold is None:
        return False
    live, held = store.adapters.live_version(base), store.adapters.candidate(base)
    versions = [one for one in (live, held) if one is not None and _has_lost_enough(store, base, one, threshold)]
    if not versions:
        return False
    if store.votes.count_trained_on(base, question=settings.labeling.training_question) < MIN_PREFERENCES:
        if live in versions:
            go_back(store, base, live, reason="too few votes are left to train on")
        return False
    last_attempt = store.taken_back.last_attempt(base)
    if last_attempt is None or new.count >= settings.trainer.period_min_votes:
        return True
    if any(_has_lost_enough(store, base, one, threshold, since=last_attempt) for one in versions):
        return True
    if live in versions and not store.adapters.is_chosen_by_hand(base, live):
        go_back(store, base, live, reason="the round without them published no version")
    return False


def go_back(store: Store, base: BaseModelRef, live: int, *, reason: str) -> None:
    """Go back from a live version that learned from votes that were taken back to the newest that did not."""
    clean_version = store.taken_back.newest_clean(base, before=live)
    _log.warning(
        "version %d learned from votes that were taken back, and %s: %s is live again",
        live,
        reason,
        version_name(clean_version),
    )
    store.adapters.set_live(base, clean_version, by="trainer")


def _has_lost_enough(store: Store, base: BaseModelRef, version: int, threshold: int, *, since: datetime = EVER) -> bool:
    """True when `threshold` votes of a version are gone, or all of one that learned from fewer."""
    if version == BASE_VERSION:
        return False
    count = store.taken_back.count(base, version, since=since)
    return count > 0 and count >= min(threshold, store.adapters.get(base, version).num_votes)


def without_taken_back(
    store: Store,
    base: BaseModelRef,
    settings: RoundSettings,
    *,
    live: int,
    trigger: Trigger,
    threshold: int | None,
) -> tuple[RoundSettings, dict[str, Any]]:
    """The settings of a round that starts now, and what its config says about the version it replaces, if any.

    A version that learned from votes which were taken back is no version to start from: a round that would do so
    starts anew.
    """
    count = 0 if live == BASE_VERSION else store.taken_back.count(base, live)
    if not count:
        return settings, {}
    clean_settings = settings.model_copy(update={"warm_start": False})
    enough = threshold is not None and _has_lost_enough(store, base, live, threshold)
    if not enough and trigger is not Trigger.WITHDRAWAL:
        return clean_settings, {}
    return clean_settings, {_REPLACES: {"version": live, "taken_back": count}}


def find_replaced(store: Store, base: BaseModelRef, config: Mapping[str, Any]) -> int | None:
    """The version that a round replaces because its votes were taken back; None if none, or if it is live no more."""
    if (replaced := config.get(_REPLACES)) is None:
        return None
    version: int = replaced["version"]
    return version if store.adapters.live_version(base) == version else None


def describe_replacement(config: Mapping[str, Any]) -> str | None:
    """The replacement of a version whose votes were taken back, in words, from a round's config; None if it is none."""
    if (replaced := config.get(_REPLACES)) is None:
        return None
    votes = "a vote that was" if replaced["taken_back"] == 1 else f"{replaced['taken_back']} votes that were"
    return f"replaces version {replaced['version']}, which learned from {votes} taken back"

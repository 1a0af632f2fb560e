"""The standing of annotators: who is established, so that what they do counts for others too, and who is a newcomer.

Outside public mode everybody is established. In public mode those are whom somebody vouches for (a sign-in, an
invitation, an import), and whoever has a record: enough votes, the first of them some time ago, and no check of them
that speaks against it. Sessions are free in an open studio; a record costs the work of one honest person each.

Shapes:  N votes;  K annotators;  P pairs.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np

from dmpo_app.domain.campaign import ReportRules
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Outcome
from dmpo_app.labeling.quality import checks
from dmpo_app.labeling.quality.quality_votes import A, B, Bools, DetailedVote, Ints, VoteArrays, wilson_share
from dmpo_app.settings import NewcomerSettings, Settings
from dmpo_app.store import Store, utc_now

MAX_ON_ONE_SIDE = 0.8
"""Somebody whose votes for an image go to one side more often than this clicks by the side, not by the images."""
MIN_RIGHT = 0.6
"""Who votes alike on less than this of their repeats, or right on less of the gold pairs, hardly beats a coin."""
_CACHE_SECONDS = 60.0


def find_established(
    votes: Sequence[DetailedVote],
    *,
    vouched: Collection[int],
    first_votes: Mapping[int, datetime],
    rules: NewcomerSettings,
    now: datetime,
    gold: Mapping[int, Outcome] | None = None,
) -> frozenset[int]:
    """Find the ids of established annotators, from votes in the order they were given.

    Records are looked at in the order in which they were complete, and each is held against the votes of those who
    were established before it: who agrees with them less often than a coin would stays a newcomer.

    Args:
        vouched: ids of annotators who need no record.
        first_votes: time of each annotator's first vote, by id.
        gold: the right outcome of gold pairs, by pair id.
    """
    arrays = VoteArrays.from_votes(votes, gold)
    oldest = now - timedelta(hours=rules.record_hours)
    complete_at = _record_complete_at(arrays, rules.record_votes)
    has_record = (complete_at >= 0) & ~_spoken_against(arrays)
    established = {k for k, one in enumerate(arrays.annotator_ids) if one in vouched}
    agreement = _AgreementWithEstablished(arrays)
    for k in established:
        agreement.add(k)
    for k in np.argsort(complete_at, kind="stable"):
        first_vote = first_votes.get(arrays.annotator_ids[k])
        if not has_record[k] or k in established or first_vote is None or first_vote > oldest:
            continue
        if not agreement.speaks_against(int(k)):
            established.add(int(k))
            agreement.add(int(k))
    return frozenset(vouched) | {arrays.annotator_ids[k] for k in established}


def _record_complete_at(arrays: VoteArrays, record_votes: int) -> Ints:
    """(K,) the place of the vote that completed each annotator's record, -1 where it is not complete.

    Of votes for an image: ties alone could be held against nothing.
    """
    counted = np.flatnonzero(np.isin(arrays.outcome, (A, B)))
    by_annotator = counted[np.argsort(arrays.annotator[counted], kind="stable")]
    numbers = np.bincount(arrays.annotator[counted], minlength=arrays.num_annotators)
    places = np.full(arrays.num_annotators, -1, np.int64)
    enough = np.flatnonzero(numbers >= record_votes)
    places[enough] = by_annotator[(np.cumsum(numbers) - numbers)[enough] + record_votes - 1]
    return places


def _spoken_against(arrays: VoteArrays) -> Bools:
    """(K,) mask of those whose sides, repeats or gold pairs are surely wrong: a 95 % interval beyond the bound."""
    against = np.zeros(arrays.num_annotators, np.bool_)
    left, repeats, gold = (
        check(arrays) for check in (checks.left_votes, checks.repeat_consistency, checks.gold_accuracy)
    )
    for k in range(arrays.num_annotators):
        low, high = _interval(left, k)
        against[k] = (
            low > MAX_ON_ONE_SIDE
            or high < 1 - MAX_ON_ONE_SIDE
            or _interval(repeats, k)[1] < MIN_RIGHT
            or _interval(gold, k)[1] < MIN_RIGHT
        )
    return against


def _interval(counts: tuple[Ints, Ints], k: int) -> tuple[float, float]:
    share = wilson_share(int(counts[0][k]), int(counts[1][k]))
    return (0.0, 1.0) if share.low is None or share.high is None else (share.low, share.high)


class _AgreementWithEstablished:
    """Agreement of an annotator's votes for an image with the majority of the established on each pair."""

    def __init__(self, arrays: VoteArrays) -> None:
        decided = np.flatnonzero(arrays.is_decided & ~arrays.repeat)
        by_annotator = decided[np.argsort(arrays.annotator[decided], kind="stable")]
        numbers = np.bincount(arrays.annotator[decided], minlength=arrays.num_annotators)
        self._votes = np.split(by_annotator, np.cumsum(numbers)[:-1])
        self._pair, self._sign = arrays.pair, np.where(arrays.outcome == A, 1, -1)
        self._balance = np.zeros(arrays.num_pairs, np.int64)

    def add(self, k: int) -> None:
        """Count the votes of annotator `k` among those of the established."""
        self._balance[self._pair[self._votes[k]]] += self._sign[self._votes[k]]

    def speaks_against(self, k: int) -> bool:
        """True when annotator `k` agrees with the established surely less often than a coin would."""
        majority = np.sign(self._balance[self._pair[self._votes[k]]])
        compared = majority != 0
        agreeing = compared & (majority == self._sign[self._votes[k]])
        share = wilson_share(int(agreeing.sum()), int(compared.sum()))
        return share.high is not None and share.high < 0.5


def open_studio_note(settings: Settings) -> str | None:
    """Note on the limits of a public studio without sign-in or invitations, in words; None for any other studio."""
    if not settings.public or settings.access != "open":
        return None
    return (
        "This studio is public and open to everybody: one person can take part as many. What newcomers weigh, hide and "
        "propose together is bounded, but whoever votes from many sessions for a day becomes many established people. "
        "To prevent that, let people sign in (DMPO_IDENTITY__OIDC_ISSUER, DMPO_LABELING__ACCESS=login) or invite them "
        "(DMPO_LABELING__ACCESS=invite)."
    )


def established_annotators(
    store: Store, base: BaseModelRef, settings: Settings, *, now: datetime | None = None
) -> frozenset[int] | None:
    """The ids of the established annotators of a lineage; None: everybody is. About 1 s for 100,000 votes."""
    if not settings.public:
        return None
    question = settings.labeling.training_question
    return find_established(
        store.vote_records.all(base, question=question),
        vouched=store.annotators.vouched(),
        first_votes=store.vote_records.first_votes(base, question=question),
        rules=settings.labeling.newcomers,
        now=now or utc_now(),
        gold=store.gold.right_outcomes(base),
    )


class Standings:
    """The standing of a lineage's annotators, looked up at most once a minute. Safe for any number of threads."""

    def __init__(
        self, store: Store, base: BaseModelRef, settings: Settings, *, now: Callable[[], datetime] = utc_now
    ) -> None:
        self._store, self._base, self._settings, self._now = store, base, settings, now
        self._lock = threading.Lock()
        self._expires_at = 0.0
        self._established: frozenset[int] | None = None

    def established(self) -> frozenset[int] | None:
        """The ids of the established annotators, at most a minute old; None: everybody is."""
        if not self._settings.public:
            return None
        with self._lock:
            if time.monotonic() >= self._expires_at:
                self._established = established_annotators(self._store, self._base, self._settings, now=self._now())
                self._expires_at = time.monotonic() + _CACHE_SECONDS
            return self._established

    def forget(self) -> None:
        """Look it up anew next time: somebody was struck or restored."""
        with self._lock:
            self._expires_at = 0.0

    def of_lineage(self, base: BaseModelRef) -> "Standings":
        """The standing of the annotators of any lineage of the home; these where it is their own."""
        return self if base.id == self._base.id else Standings(self._store, base, self._settings, now=self._now)

    def report_rules(self) -> ReportRules:
        """The rules by which reports take pairs from everybody now."""
        labeling = self._settings.labeling
        return ReportRules(
            labeling.retirement_threshold(public=self._settings.public),
            self.established(),
            labeling.newcomers.reports_to_hide,
            labeling.newcomers.hidden_share,
        )

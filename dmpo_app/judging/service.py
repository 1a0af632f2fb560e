"""The judging service: the comparisons of versions by people's duels in words, and the decisions that follow from them.

By the mode of the settings, see `JudgingSettings.mode`:

    publish   nothing follows from duels by itself
    rollback  the version that was live before the live one comes back when the live one is proven worse than it
    hold      the candidate, which is held back, goes live when it is proven better than the live version, and is
              rejected when it is proven worse; without one as in rollback, since held-out votes may have made a version
              live, and what turned a round's votes round turned these round too

A decision that was made stays: judgements that are taken back afterwards undo nothing, and a version that an
administrator made live is never rolled back.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from dmpo_app.domain.judging import (
    Board,
    DuelTest,
    Evidence,
    NewVerdict,
    Verdict,
    VerdictAction,
    VerdictRecord,
    version_name,
)
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.judging.duel_test import DuelRules, compare_by_duels
from dmpo_app.settings import JudgingSettings
from dmpo_app.settings.judging_settings import JudgingMode
from dmpo_app.store import Store

MAX_AGE_SECONDS = 30.0
"""A test is computed anew after so long also without a new judgement: annotators may have been struck since."""
BOARD_RESAMPLES = 300
BOARD_REST = 20


@dataclass(frozen=True, slots=True)
class ComparisonState:
    """The state of a comparison of two versions by duels. `consequence`: what follows from it in the present mode."""

    version: int
    other_version: int
    test: DuelTest
    sentence: str
    consequence: str


@dataclass(frozen=True, slots=True)
class JudgingState:
    """The state of judging. `candidate`: the version that is held back and judged now, if there is one."""

    mode: JudgingMode
    live_version: int
    candidate: int | None
    comparisons: tuple[ComparisonState, ...]


@dataclass(frozen=True, slots=True)
class _CachedBoard:
    board: Board
    judgements: tuple[int, int]
    stands_until: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class _Versions:
    """The versions that decisions are about, and a sign of the judgements there are: with the same, nothing is new."""

    live: int
    before: int | None
    candidate: int | None
    obstacle: str | None
    """The reason why the one before does not come back by itself, whatever duels prove."""
    is_candidate_tainted: bool
    """The candidate learned from votes that were taken back, so that it does not go live."""
    judgements: tuple[int, int]

    def decided_by(self, mode: JudgingMode) -> tuple[int, int] | None:
        """The versions whose comparison decides something in a mode."""
        if mode == "publish":
            return None
        if mode == "hold" and self.candidate is not None:
            return self.candidate, self.live
        return None if self.before is None or self.obstacle is not None else (self.live, self.before)


class JudgingService:
    """Comparisons, decisions and their words for one lineage. Safe for any number of threads and processes."""

    def __init__(
        self,
        store: Store,
        base: BaseModelRef,
        settings: JudgingSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._base = base
        self._settings = settings
        self._rules = DuelRules(max_annotator_share=settings.annotator_cap)
        self._clock = clock
        self._lock = threading.Lock()
        self._cached_tests: dict[tuple[int, int], tuple[tuple[int, int], float, DuelTest]] = {}
        self._board_lock = threading.Lock()
        self._cached_board: _CachedBoard | None = None

    def state(self) -> JudgingState:
        """The comparisons there are now, with their numbers and words."""
        versions = self._read_versions()
        shown = [(one.version_a, one.version_b) for one in self._store.duels.comparisons(self._base)]
        if (decisive := versions.decided_by(self._settings.mode)) is not None:
            shown.insert(0, decisive)  # the mode may be another than when the candidate was held back
        return JudgingState(
            mode=self._settings.mode,
            live_version=versions.live,
            candidate=versions.candidate,
            comparisons=tuple(self._comparison(versions, *pair) for pair in dict.fromkeys(shown)),
        )

    def decide(self) -> VerdictAction:
        """Act on what duels have proven by now; NONE when there is nothing to be done. Safe to call at any time."""
        versions = self._read_versions()
        decisive = versions.decided_by(self._settings.mode)
        if decisive is None:
            return VerdictAction.NONE
        test = self._test(*decisive, versions.judgements)
        verdict = _new_verdict(*decisive, test)
        adapters = self._store.adapters
        if decisive[0] == versions.live:
            if test.verdict is Verdict.WORSE and adapters.roll_back(self._base, verdict):
                return VerdictAction.ROLLED_BACK
        elif test.verdict is Verdict.BETTER and adapters.promote(self._base, verdict):
            return VerdictAction.PROMOTED
        elif test.verdict is Verdict.WORSE and adapters.reject(self._base, verdict):
            return VerdictAction.REJECTED
        return VerdictAction.NONE

    def board(self, *, resamples: int = BOARD_RESAMPLES) -> Board:
        """All versions that were judged, ranked: the last board where no judgement is new.

        Making one takes seconds for many judgements, so one stands for `BOARD_REST` times as long as it took to make.
        """
        judgements = self._store.verdicts.count_judgements(self._base)
        with self._board_lock:
            started_at, cached = self._clock(), self._cached_board
            if cached is not None and started_at < cached.stands_until:
                return cached.board
            if cached is not None and cached.judgements == judgements and started_at < cached.expires_at:
                return cached.board
            from dmpo_app.judging.board import make_board  # it imports scipy, which no page should wait for

            board = make_board(self._store.duels.all_judgements(self._base), resamples=resamples)
            seconds = self._clock() - started_at
            now = self._clock()
            expires_at = now + max(MAX_AGE_SECONDS, BOARD_REST * seconds)  # annotators may have been struck since
            self._cached_board = _CachedBoard(board, judgements, now + BOARD_REST * seconds, expires_at)
            return board

    def _read_versions(self) -> _Versions:
        adapters, base = self._store.adapters, self._base
        live = adapters.live_version(base)
        before = adapters.version_before(base, live)
        obstacle = None
        if adapters.is_chosen_by_hand(base, live):
            obstacle = f"an administrator chose {version_name(live)}, so it stays"
        elif before is not None and adapters.would_bring_back(base, before, live=live):
            obstacle = f"{version_name(before)} learned from votes that were taken back, so it does not come back"
        candidate = adapters.candidate(base)
        return _Versions(
            live=live,
            before=before,
            candidate=candidate,
            is_candidate_tainted=candidate is not None and adapters.would_bring_back(base, candidate, live=live),
            obstacle=obstacle,
            judgements=self._store.verdicts.count_judgements(base),
        )

    def _comparison(self, versions: _Versions, version: int, other: int) -> ComparisonState:
        test = self._test(version, other, versions.judgements)
        return ComparisonState(
            version,
            other,
            test,
            sentence=test.sentence(version, other),
            consequence=_consequence(self._settings.mode, versions, version, other, test.verdict),
        )

    def _test(self, version: int, other: int, judgements: tuple[int, int]) -> DuelTest:
        """The test of two versions: the last one where nothing is new since."""
        with self._lock:
            now = self._clock()
            cached = self._cached_tests.get((version, other))
            if cached is not None and cached[0] == judgements and now - cached[1] < MAX_AGE_SECONDS:
                return cached[2]
            rows = self._store.duels.judgements(self._base, version, other)
            test = compare_by_duels(rows, candidate=version, other=other, rules=self._rules)
            if len(self._cached_tests) > 16:  # of versions that nobody compares any more
                self._cached_tests.clear()
            self._cached_tests[version, other] = (judgements, now, test)
            return test


def _new_verdict(version: int, other: int, test: DuelTest) -> NewVerdict:
    numbers = {name: value for name, value in asdict(test).items() if name != "verdict"}
    return NewVerdict(
        version, other, test.verdict, Evidence.DUELS, numbers | {"sentence": test.sentence(version, other)}
    )


def _consequence(mode: JudgingMode, versions: _Versions, version: int, other: int, verdict: Verdict) -> str:
    """The consequence of a comparison, in words."""
    name, other_name = version_name(version), version_name(other)
    if (version, other) != versions.decided_by(mode):
        if mode != "publish" and (version, other) == (versions.live, versions.before) and versions.obstacle:
            return versions.obstacle
        return "nothing follows from it by itself"
    if version != versions.live:
        if versions.is_candidate_tainted:
            return f"{name} learned from votes that were taken back, so it does not go live"
        outcomes = {Verdict.BETTER: f"{name} goes live", Verdict.WORSE: f"{name} stays held back"}
        return outcomes.get(verdict, f"{name} goes live once it is proven better")
    outcomes = {Verdict.WORSE: f"{other_name} comes back", Verdict.BETTER: f"{name} stays live"}
    return outcomes.get(verdict, f"{name} is live; {other_name} comes back if it is proven worse")


_DECISIONS = {
    VerdictAction.PROMOTED: "{name} went live",
    VerdictAction.REJECTED: "{name} stays held back",
    VerdictAction.ROLLED_BACK: "{other} came back",
    VerdictAction.NONE: "noted",
}
_EVIDENCE = {
    Evidence.DUELS: "by people's duels",
    Evidence.HELD_OUT: "by votes it has not seen",
    Evidence.CROSS_FITTING: "by votes held out in turn",
}


def verdict_sentence(record: VerdictRecord) -> str:
    """A verdict in words: "version 3 went live: better than version 2 by people's duels"."""
    name, other = version_name(record.version), version_name(record.other_version)
    decision = _DECISIONS[record.action].format(name=name, other=other)
    subject = "" if record.action in (VerdictAction.PROMOTED, VerdictAction.REJECTED) else f"{name} is "
    sentence = f"{decision}: {subject}{record.verdict.value} than {other} {_EVIDENCE[record.evidence]}"
    return sentence[0].upper() + sentence[1:]

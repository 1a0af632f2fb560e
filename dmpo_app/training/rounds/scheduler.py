"""The scheduler of rounds: decides when to train, and sees a round through whatever happens.

A tick is one decision; the loop around it (`process`) is thin. Order of the decisions:

    the lease is somebody else's            -> WAITING
    a round is queued, or was left running  -> take it up (after a pause, if it just failed)
    enough new votes are in                 -> start a round
    some are, and they have waited long     -> start a round
    else                                    -> PREPARED, then IDLE
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum

from dmpo_app.diffusion.adapter_files import remove_staging_folders
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.round import RoundState, Trigger
from dmpo_app.errors import (
    BusyError,
    ConflictError,
    LeaseLostError,
    PeerLostError,
    RoundFailedError,
    StorageFullError,
    StudioError,
)
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from dmpo_app.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from dmpo_app.training.reference.prefetch import ReferencePrefetcher
from dmpo_app.training.reference.vote_margins import MarginPrefetcher
from dmpo_app.training.rounds.held_lease import TrainerLease
from dmpo_app.training.rounds.round_runner import LineageTrainer, SliceOutcome, remove_checkpoint

_log = logging.getLogger(__name__)


def next_round(store: Store, base: BaseModelRef, settings: Settings, now: datetime) -> RoundState | None:
    """The lineage's queued or running round, else a new one if enough votes are in; None otherwise."""
    current = store.rounds.current(base)
    if current is not None:
        return current
    trigger = _due_trigger(store, base, settings, now)
    if trigger is None:
        return None
    try:
        return store.rounds.request(base, trigger, question=settings.labeling.training_question)
    except ConflictError as error:  # an administrator's request or an undone vote came in between
        _log.info("no round is started: %s", error)
        return None


def _due_trigger(store: Store, base: BaseModelRef, settings: Settings, now: datetime) -> Trigger | None:
    new = store.votes.new_preferences(base, question=settings.labeling.training_question)
    if new.count >= settings.min_votes:
        return Trigger.VOTES
    trainer = settings.trainer
    if trainer.period_minutes is None or new.oldest_at is None or new.count < trainer.period_min_votes:
        return None
    waiting_time = now - new.oldest_at
    return Trigger.PERIOD if waiting_time >= timedelta(minutes=trainer.period_minutes) else None


_PAUSE_AFTER_FAILURE = timedelta(seconds=5)


class Tick(StrEnum):
    """The outcome of a tick.

    PREPARED: nothing to train yet, but references for the next round. TRAINED: a round finished. STOPPED: told to stop
    amid a round. PAUSED: waits before it tries again.
    """

    IDLE = "idle"
    PREPARED = "prepared"
    WAITING = "waiting"
    PAUSED = "paused"
    TRAINED = "trained"
    FAILED = "failed"
    STOPPED = "stopped"


class RoundScheduler:
    """Scheduler of one lineage's rounds.

    `owner` names the holder of the lease; one that restarts under its old name need not wait.
    """

    def __init__(
        self,
        store: Store,
        base: BaseModelRef,
        settings: Settings,
        denoiser: Denoiser,
        *,
        owner: str,
        now: Callable[[], datetime],
        should_stop: Callable[[], bool] = lambda: False,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self._store = store
        self._base = base
        self._settings = settings
        self._denoiser = denoiser
        self._now = now
        self._lease = TrainerLease(store, base, owner, seconds=settings.trainer.lease_seconds, now=now)
        self._lineage_trainer = LineageTrainer(
            store, base, settings, denoiser, lease=self._lease, should_stop=should_stop, group=group
        )
        self._failures: dict[int, int] = {}
        self._paused_until = now()
        self._reference_prefetcher = self._make_reference_prefetcher()
        self._margin_prefetcher = None
        if settings.labeling.strategy == "uncertainty":
            self._margin_prefetcher = MarginPrefetcher(store, base, denoiser, settings.round)

    def tick(self) -> Tick:
        """Decide and act once; trains a round to its end if there is one. Only bugs and PeerLostError escape."""
        try:
            if not self._hold_lease():
                return Tick.WAITING
            state = self._next_round()
        except LeaseLostError:
            return self._lease_lost()
        except (BusyError, StorageFullError) as error:
            return self._pause(f"the store takes nothing for now: {error}")
        if state is None:
            return self._prefetch()
        if self._now() < self._paused_until:
            return Tick.PAUSED
        return self._train(state)

    def close(self) -> None:
        """Release the lease, so that the next trainer need not wait."""
        self._lease.release()

    def _next_round(self) -> RoundState | None:
        """The round to work on now: the unfinished one, or a new one if it is time."""
        return next_round(self._store, self._base, self._settings, self._now())

    def _prefetch(self) -> Tick:
        """Use the time until the next round to compute a batch of references for it, or of margins for annotators."""
        if self._now() < self._paused_until:
            return Tick.IDLE
        try:
            did_work = self._reference_prefetcher.fill() or (
                self._margin_prefetcher is not None and self._margin_prefetcher.fill()
            )
            return Tick.PREPARED if did_work else Tick.IDLE
        except StudioError as error:
            self._reference_prefetcher = self._make_reference_prefetcher()
            return self._pause(f"references cannot be prepared, the round will compute them: {error}")

    def _make_reference_prefetcher(self) -> ReferencePrefetcher:
        question = self._settings.labeling.training_question
        return ReferencePrefetcher(self._store, self._base, self._denoiser, self._settings.round, question=question)

    def _train(self, state: RoundState) -> Tick:
        try:
            outcome = self._train_round(state)
        except PeerLostError:
            raise  # no fault of the round's; it goes on when all processes are started again
        except LeaseLostError:
            return self._lease_lost()
        except (BusyError, StorageFullError) as error:
            return self._pause(f"round {state.id} waits: {error}")
        except RoundFailedError as error:
            return self._fail(state, str(error), final=True)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is logged and recorded, and the trainer goes on
            _log.exception("round %d failed", state.id)
            return self._fail(state, f"{type(error).__name__}: {error}", final=False)
        self._failures.pop(state.id, None)
        return Tick.STOPPED if outcome is SliceOutcome.STOPPED else Tick.TRAINED

    def _train_round(self, state: RoundState) -> SliceOutcome:
        self._reference_prefetcher.save()
        self._reference_prefetcher = self._make_reference_prefetcher()
        return self._lineage_trainer.train(state)

    def _fail(self, state: RoundState, reason: str, *, final: bool) -> Tick:
        failures = self._failures.pop(state.id, 0) + 1
        final = final or failures >= self._settings.trainer.max_attempts
        if not final:
            self._failures[state.id] = failures
            self._paused_until = self._now() + _PAUSE_AFTER_FAILURE * 2 ** (failures - 1)
        _log.error("round %d failed%s: %s", state.id, "" if final else ", will be tried again", reason)
        try:
            self._store.rounds.fail(state.id, reason, token=self._lease.token, final=final)
        except LeaseLostError:
            return self._lease_lost()
        except (BusyError, StorageFullError) as error:
            return self._pause(f"the failure of round {state.id} could not be recorded: {error}")
        if final:
            remove_checkpoint(self._store.home, state.id)
        return Tick.FAILED

    def _pause(self, why: str) -> Tick:
        _log.warning("%s", why)
        self._paused_until = self._now() + _PAUSE_AFTER_FAILURE
        return Tick.PAUSED

    def _hold_lease(self) -> bool:
        if self._lease.is_held:
            self._lease.renew()
            return True
        if not self._lease.acquire():
            return False
        remove_staging_folders(self._store.adapters.root(self._base))
        return True

    def _lease_lost(self) -> Tick:
        _log.warning("another trainer has taken over this lineage; waiting until it is gone")
        self._lease.mark_lost()
        return Tick.WAITING

"""The worker that decides when to train, and sees a round through whatever happens.

A tick is one decision; the loop around it (`process`) is thin. Order of the decisions:

    the lease is somebody else's            -> WAITING
    a round is queued, or was left running  -> take it up (after a pause, if it just failed)
    enough new votes are in                 -> start a round
    some are, and they have waited long     -> start a round
    else                                    -> PREPARED, then IDLE
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from enum import StrEnum

import torch

from dmpo_app.diffusion.adapter_files import remove_leftovers
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.domain import BaseModelRef, RoundState, Trigger
from dmpo_app.errors import Busy, Conflict, LeaseLost, PeerLost, RoundFailed, StorageFull, StudioError
from dmpo_app.settings import RoundSettings, Settings
from dmpo_app.store import Store
from dmpo_app.training.atomic_files import write_atomically
from dmpo_app.training.automatic import AutomaticPlan, score_for_round
from dmpo_app.training.dataset import is_held_out
from dmpo_app.training.group import ALONE, Group
from dmpo_app.training.plan import start_round
from dmpo_app.training.progress import Track
from dmpo_app.training.reference_filler import ReferenceFiller, calibrated_settings
from dmpo_app.training.round_runner import RoundRunner, SliceOutcome, remove_checkpoint, round_folder
from dmpo_app.training.trackers import tracked_round

MAX_DEATHS = 10
"""A round that takes the whole process down this often in a row without getting any further is given up."""
_PAUSE_AFTER_FAILURE = timedelta(seconds=5)
_NO_TOKEN = -1
_log = logging.getLogger(__name__)


class Tick(StrEnum):
    """What a tick did.

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


IDLE, END = "idle", "end"
"""What a leading process tells the others between rounds; the number of a round is an order to train it with it."""


def follow(store: Store, base: BaseModelRef, denoiser: Denoiser, group: Group) -> None:
    """Train what the group's leading process trains until it says END. Raises whatever ends a round there or here."""
    while (order := group.led(str)) != END:
        if order == IDLE:
            continue
        runner = RoundRunner(store, base, denoiser, store.rounds.get(int(order)), token=_NO_TOKEN, group=group)
        try:
            while runner.run_slice() is SliceOutcome.MORE:
                pass
        finally:
            runner.close()


class Worker:
    """Trains one lineage. `owner` names the holder of the lease; one that restarts under its old name need not wait."""

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
        group: Group = ALONE,
    ) -> None:
        self._store = store
        self._base = base
        self._settings = settings
        self._denoiser = denoiser
        self._owner = owner
        self._now = now
        self._should_stop = should_stop
        self._group = group
        self._token: int | None = None
        self._renewed_at = now()
        self._failures: dict[int, int] = {}
        self._not_before = now()
        self._filler = self._new_filler()

    def tick(self) -> Tick:
        """Decide and act once; trains a round to its end if there is one. Only bugs and PeerLost escape."""
        try:
            if not self._hold_lease():
                return Tick.WAITING
            state = self._next_round()
        except LeaseLost:
            return self._lease_lost()
        except (Busy, StorageFull) as error:
            return self._pause(f"the store takes nothing for now: {error}")
        if state is None:
            return self._prepare()
        if self._now() < self._not_before:
            return Tick.PAUSED
        return self._train(state)

    def close(self) -> None:
        """Let the next trainer have the lease at once."""
        if self._token is None:
            return
        try:
            self._store.lease.release(self._base, self._token)
        except LeaseLost:
            _log.info("the lease had gone to another trainer already")
        self._token = None

    def _next_round(self) -> RoundState | None:
        """The round to work on now: the unfinished one, or a new one if it is time."""
        current = self._store.rounds.current(self._base)
        if current is not None:
            return current
        trigger = self._due()
        if trigger is None:
            return None
        try:
            return self._store.rounds.request(self._base, trigger)
        except Conflict as error:  # an administrator's request or an undone vote came in between
            _log.info("no round is started: %s", error)
            return None

    def _due(self) -> Trigger | None:
        new = self._store.votes.new_preferences(self._base)
        if new.count >= self._settings.min_votes:
            return Trigger.VOTES
        trainer = self._settings.trainer
        if trainer.period_minutes is None or new.oldest_at is None or new.count < trainer.period_min_votes:
            return None
        waited = self._now() - new.oldest_at
        return Trigger.PERIOD if waited >= timedelta(minutes=trainer.period_minutes) else None

    def _prepare(self) -> Tick:
        """Use the time until the next round to compute a batch of references for it."""
        if self._now() < self._not_before:
            return Tick.IDLE
        try:
            return Tick.PREPARED if self._filler.fill() else Tick.IDLE
        except StudioError as error:
            self._filler = self._new_filler()
            return self._pause(f"references cannot be prepared, the round will compute them: {error}")

    def _new_filler(self) -> ReferenceFiller:
        return ReferenceFiller(self._store, self._base, self._denoiser, self._settings.round)

    def _train(self, state: RoundState) -> Tick:
        try:
            outcome = self._run(state)
        except PeerLost:
            raise  # no fault of the round's; it goes on when all processes are started again
        except LeaseLost:
            return self._lease_lost()
        except (Busy, StorageFull) as error:
            return self._pause(f"round {state.id} waits: {error}")
        except RoundFailed as error:
            return self._fail(state, str(error), final=True)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is logged and recorded, and the trainer goes on
            _log.exception("round %d failed", state.id)
            return self._fail(state, f"{type(error).__name__}: {error}", final=False)
        self._failures.pop(state.id, None)
        return Tick.STOPPED if outcome is SliceOutcome.STOPPED else Tick.TRAINED

    def _run(self, state: RoundState) -> SliceOutcome:
        token = self._require_token()
        self._filler.save()
        self._filler = self._new_filler()
        settings, automatic = self._prepared(state)
        started = start_round(
            self._store,
            self._base,
            state.id,
            trigger=state.trigger,
            settings=settings,
            environment=self._environment(),
            token=token,
            automatic=automatic,
        )
        _log.info("round %d: %d votes, attempt %d", started.id, started.num_votes, started.attempts)
        self._group.led(lambda: str(started.id))
        config = started.config.get("settings", {})
        with closing(tracked_round(self._settings.trainer.tracker, self._store.home, started.id, config)) as tracked:
            return self._run_started(started, tracked, token)

    def _run_started(self, started: RoundState, track: Track, token: int) -> SliceOutcome:
        runner = RoundRunner(
            self._store,
            self._base,
            self._denoiser,
            started,
            token=token,
            heartbeat=self._heartbeat,
            should_stop=self._should_stop,
            track=track,
            group=self._group,
        )
        try:
            self._count_death(started, runner.step)
            outcome = SliceOutcome.MORE
            while outcome is SliceOutcome.MORE:
                outcome = runner.run_slice()
            return outcome
        finally:
            runner.close()

    def _prepared(self, state: RoundState) -> tuple[RoundSettings, AutomaticPlan | None]:
        """What a round starts with: its settings with every beta, and the evidence of scorers. One that was started
        before keeps what it has."""
        settings = self._settings.round
        if state.started_at is not None:
            return settings, None
        votes = self._store.votes.training_votes(self._base)
        calibrated = calibrated_settings(self._store, self._base, self._denoiser, settings, votes)
        automatic = score_for_round(
            self._store,
            self._base,
            settings.scoring,
            votes,
            may_train_on=lambda prompt: not is_held_out(prompt, share=settings.held_out_share, seed=settings.seed),
            device=self._denoiser.device.type,
            heartbeat=self._show_life,
        )
        return calibrated, automatic

    def _show_life(self) -> None:
        """To the lease, and to the processes that wait to train along."""
        self._heartbeat()
        self._group.led(lambda: IDLE)

    def _count_death(self, state: RoundState, step: int) -> None:
        """Give up on a round that kills the process again and again at one place, for want of memory most likely.

        Being killed while getting on is no failure: a round may be resumed any number of times.
        """
        path = round_folder(self._store.home, state.id) / "starts.json"
        try:
            earlier = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            earlier = {"step": -1, "starts": 0}
        starts = earlier["starts"] + 1 if earlier["step"] == step else 1
        if starts > MAX_DEATHS:
            raise RoundFailed(
                f"the trainer died {MAX_DEATHS} times in a row at step {step}; most likely the system ended it for "
                "want of memory: set a smaller DMPO_ROUND__BATCH_PAIRS or DMPO_ROUND__RANK"
            )
        write_atomically(path, json.dumps({"step": step, "starts": starts}).encode())

    def _fail(self, state: RoundState, reason: str, *, final: bool) -> Tick:
        failures = self._failures.pop(state.id, 0) + 1
        final = final or failures >= self._settings.trainer.max_attempts
        if not final:
            self._failures[state.id] = failures
            self._not_before = self._now() + _PAUSE_AFTER_FAILURE * 2 ** (failures - 1)
        _log.error("round %d failed%s: %s", state.id, "" if final else ", will be tried again", reason)
        try:
            self._store.rounds.fail(state.id, reason, token=self._require_token(), final=final)
        except LeaseLost:
            return self._lease_lost()
        except (Busy, StorageFull) as error:
            return self._pause(f"the failure of round {state.id} could not be recorded: {error}")
        if final:
            remove_checkpoint(self._store.home, state.id)
        return Tick.FAILED

    def _pause(self, why: str) -> Tick:
        _log.warning("%s", why)
        self._not_before = self._now() + _PAUSE_AFTER_FAILURE
        return Tick.PAUSED

    def _hold_lease(self) -> bool:
        if self._token is not None:
            self._heartbeat()
            return True
        seconds = self._settings.trainer.lease_seconds
        self._token = self._store.lease.acquire(self._base, self._owner, lease_seconds=seconds)
        self._renewed_at = self._now()
        if self._token is None:
            return False
        remove_leftovers(self._store.adapters.root(self._base))
        return True

    def _heartbeat(self) -> None:
        """Renew the lease when a quarter of it is over. Raises LeaseLost."""
        if self._now() - self._renewed_at >= timedelta(seconds=self._settings.trainer.lease_seconds / 4):
            self._store.lease.renew(self._base, self._require_token())
            self._renewed_at = self._now()

    def _require_token(self) -> int:
        if self._token is None:
            raise LeaseLost("this trainer holds no lease")
        return self._token

    def _lease_lost(self) -> Tick:
        _log.warning("another trainer has taken over this lineage; waiting until it is gone")
        self._token = None
        return Tick.WAITING

    def _environment(self) -> dict[str, str | int]:
        return {
            "processes": self._group.size,
            "device": self._denoiser.device.type,
            "dtype": self._denoiser.precision,
            "num_threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

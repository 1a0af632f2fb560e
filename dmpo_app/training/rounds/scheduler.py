"""The scheduler of rounds: decides when to train, and sees a round through whatever happens.

A tick is one decision; the loop around it (`training/process/trainer_process.py`) is thin. Order of the decisions:

    the lease is somebody else's            -> WAITING
    a round is queued, or was left running  -> take it up (after a pause, if it just failed)
    enough new votes are in                 -> start a round
    some are, and they have waited long     -> start a round
    enough of the live version's votes are taken back -> start one without them, or go back if there are too few others
    else                                    -> PREPARED, then IDLE
"""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

import torch

from dmpo_app import errors
from dmpo_app.diffusion.adapter_files import remove_staging_folders
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.domain.lineage import BaseModelRef, NewPreferences, RoundState, TrainingVote, Trigger
from dmpo_app.io.files import write_atomically
from dmpo_app.io.liveness import advance, phase
from dmpo_app.settings import RoundSettings, Settings, TrainerSettings
from dmpo_app.store import Store
from dmpo_app.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from dmpo_app.training.reference.calibration import calibrate_settings
from dmpo_app.training.reference.prefetch import MarginPrefetcher, ReferencePrefetcher
from dmpo_app.training.rounds import round_runner
from dmpo_app.training.rounds.round_plan import start_or_resume
from dmpo_app.training.rounds.round_progress import MetricsCallback, start_round_tracker
from dmpo_app.training.rounds.withdrawals import answer_withdrawals

_log = logging.getLogger(__name__)


def next_round(store: Store, base: BaseModelRef, settings: Settings, now: datetime) -> RoundState | None:
    """The lineage's queued or running round, else a new one if enough votes are in or taken back; None otherwise."""
    current = store.rounds.current(base)
    if current is not None:
        return current
    trigger = _due_trigger(store, base, settings, now)
    if trigger is None:
        return None
    try:
        return store.rounds.request(base, trigger, question=settings.labeling.training_question)
    except errors.ConflictError as error:  # an administrator's request or an undone vote came in between
        _log.info("no round is started: %s", error)
        return None


def _due_trigger(store: Store, base: BaseModelRef, settings: Settings, now: datetime) -> Trigger | None:
    new = store.votes.new_preferences(base, question=settings.labeling.training_question)
    if new.count >= settings.min_votes:
        return Trigger.VOTES
    if _have_waited(new, settings.trainer, now):
        return Trigger.PERIOD
    return Trigger.WITHDRAWAL if answer_withdrawals(store, base, settings, new) else None


def _have_waited(new: NewPreferences, trainer: TrainerSettings, now: datetime) -> bool:
    """True when there are a few new votes, and they have waited for long."""
    if trainer.period_minutes is None or new.oldest_at is None or new.count < trainer.period_min_votes:
        return False
    return now - new.oldest_at >= timedelta(minutes=trainer.period_minutes)


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

    `owner` names the holder of the lease; one that restarts under its old name need not wait. `hang` says how the
    trainer before this one hung, if it did.
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
        hang: str = "",
    ) -> None:
        self._store = store
        self._base = base
        self._settings = settings
        self._denoiser = denoiser
        self._now = now
        self._lease = round_runner.TrainerLease(store, base, owner, seconds=settings.trainer.lease_seconds, now=now)
        self._lineage_trainer = LineageTrainer(
            store, base, settings, denoiser, lease=self._lease, should_stop=should_stop, group=group
        )
        self._failures: dict[int, int] = {}
        self._hang = hang
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
        except errors.LeaseLostError:
            return self._lease_lost()
        except (errors.BusyError, errors.StorageFullError) as error:
            return self._pause(f"the store takes nothing for now: {error}")
        if state is None:
            self._hang = ""  # it was in no round
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
            advance("preparing references")
            did_work = self._reference_prefetcher.fill() or (
                self._margin_prefetcher is not None and self._margin_prefetcher.fill()
            )
            return Tick.PREPARED if did_work else Tick.IDLE
        except errors.DamagedFileError as error:
            self._reference_prefetcher = self._make_reference_prefetcher()
            return self._leave_out(error, "the next round")
        except errors.StudioError as error:
            self._reference_prefetcher = self._make_reference_prefetcher()
            return self._pause(f"references cannot be prepared, the round will compute them: {error}")

    def _make_reference_prefetcher(self) -> ReferencePrefetcher:
        question = self._settings.labeling.training_question
        return ReferencePrefetcher(self._store, self._base, self._denoiser, self._settings.round, question=question)

    def _train(self, state: RoundState) -> Tick:
        try:
            outcome = self._train_round(state)
        except errors.PeerLostError:
            raise  # no fault of the round's; it goes on when all processes are started again
        except errors.LeaseLostError:
            return self._lease_lost()
        except (errors.BusyError, errors.StorageFullError, errors.SystemExhaustedError) as error:
            return self._pause(f"round {state.id} waits: {error}")
        except errors.DamagedFileError as error:
            return self._leave_out(error, f"round {state.id}")
        except errors.RoundFailedError as error:
            return self._fail(state, str(error), final=True)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is logged and recorded, and the trainer goes on
            _log.exception("round %d failed", state.id)
            return self._fail(state, f"{type(error).__name__}: {error}", final=False)
        self._failures.pop(state.id, None)
        return Tick.STOPPED if outcome is round_runner.SliceOutcome.STOPPED else Tick.TRAINED

    def _train_round(self, state: RoundState) -> round_runner.SliceOutcome:
        self._reference_prefetcher.save()
        self._reference_prefetcher = self._make_reference_prefetcher()
        hang, self._hang = self._hang, ""
        if hang:
            count_hang(round_runner.round_folder(self._store.home, state.id) / "hangs.json", hang, self._settings)
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
        except errors.LeaseLostError:
            return self._lease_lost()
        except (errors.BusyError, errors.StorageFullError) as error:
            return self._pause(f"the failure of round {state.id} could not be recorded: {error}")
        if final:
            round_runner.remove_checkpoint(self._store.home, state.id)
        return Tick.FAILED

    def _leave_out(self, damage: errors.DamagedFileError, what: str) -> Tick:
        """Record a damaged file: from now on the votes on its pair are left out, until it has been encoded again."""
        try:
            self._store.damage.record(damage)
        except (errors.BusyError, errors.StorageFullError) as error:
            return self._pause(f"{damage}; that could not be recorded: {error}")
        return self._pause(f"{what} goes on without the votes on a pair that has lost its tensors: {damage}")

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


MAX_CRASHES = 10
"""A round that takes the whole process down this often in a row without getting any further is given up."""
IDLE, END = "idle", "end"
"""Commands of the main process to the others between rounds; the number of a round is the command to train it."""
_NO_TOKEN = -1


def run_secondary_process(store: Store, base: BaseModelRef, denoiser: Denoiser, group: ProcessGroup) -> None:
    """Train along with the group's main process until it sends END. Raises whatever ends a round there or here."""
    while (command := group.broadcast(str)) != END:
        if command == IDLE:
            continue
        runner = round_runner.RoundRunner(
            store, base, denoiser, store.rounds.get(int(command)), token=_NO_TOKEN, group=group
        )
        try:
            while runner.run_slice() is round_runner.SliceOutcome.MORE:
                pass
        except errors.DamagedFileError as error:
            store.damage.record(error)  # the main process sees a peer fail, not why
            raise
        finally:
            runner.close()


class LineageTrainer:
    """Trainer of one lineage's rounds, one at a time, under its lease; other processes run `run_secondary_process`."""

    def __init__(
        self,
        store: Store,
        base: BaseModelRef,
        settings: Settings,
        denoiser: Denoiser,
        *,
        lease: round_runner.TrainerLease,
        should_stop: Callable[[], bool],
        group: ProcessGroup,
    ) -> None:
        self._store = store
        self._base = base
        self._settings = settings
        self._denoiser = denoiser
        self._lease = lease
        self._should_stop = should_stop
        self._group = group

    def train(self, state: RoundState) -> round_runner.SliceOutcome:
        """Start or resume the round and go on until it is over or a stop is asked for. Raises whatever ends it."""
        settings = self._settings
        with phase("preparing the round"):
            round_state = start_or_resume(
                self._store,
                self._base,
                settings,
                state,
                calibrate=self._calibrate,
                scoring_device=self._denoiser.device.type,
                environment=self._environment(),
                token=self._lease.token,
                heartbeat=self._heartbeat,
            )
        _log.info("round %d: %d votes, attempt %d", round_state.id, round_state.num_votes, round_state.attempts)
        self._group.broadcast(lambda: str(round_state.id))
        config = round_state.config.get("settings", {})
        with closing(
            start_round_tracker(settings.trainer.tracker, self._store.home, round_state.id, config)
        ) as tracker:
            return self._run_slices(round_state, tracker)

    def _run_slices(self, round_state: RoundState, track: MetricsCallback) -> round_runner.SliceOutcome:
        with phase("preparing the round"):
            runner = round_runner.RoundRunner(
                self._store,
                self._base,
                self._denoiser,
                round_state,
                token=self._lease.token,
                heartbeat=self._begin_step,
                should_stop=self._should_stop,
                track=track,
                group=self._group,
                is_held=self._settings.judging.mode == "hold",
            )
        try:
            check_crash_loop(round_runner.round_folder(self._store.home, round_state.id) / "starts.json", runner.step)
            outcome = round_runner.SliceOutcome.MORE
            while outcome is round_runner.SliceOutcome.MORE:
                outcome = runner.run_slice()
            return outcome
        finally:
            runner.close()

    def _heartbeat(self) -> None:
        """Renew the lease, and send a heartbeat to the processes that wait to train along."""
        advance("scoring images")
        self._lease.renew()
        self._group.broadcast(lambda: IDLE)

    def _begin_step(self) -> None:
        advance("training")
        self._lease.renew()

    def _calibrate(self, votes: Sequence[TrainingVote]) -> RoundSettings:
        with phase("calibrating beta"):
            return calibrate_settings(self._store, self._base, self._denoiser, self._settings.round, votes)

    def _environment(self) -> dict[str, str | int]:
        return {
            "processes": self._group.world_size,
            "device": self._denoiser.device.type,
            "dtype": self._denoiser.precision,
            "num_threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


def count_hang(path: Path, hang: str, settings: Settings) -> None:
    """Count a hang of the trainer as a failed attempt of its round. Raises RoundFailedError at the last allowed one."""
    try:
        hangs = json.loads(path.read_text())["hangs"] + 1
    except (FileNotFoundError, ValueError):
        hangs = 1
    if hangs >= settings.trainer.max_attempts:
        raise errors.RoundFailedError(f"the trainer hung {hangs} times in this round; the last time: {hang}")
    write_atomically(path, json.dumps({"hangs": hangs}).encode())


def check_crash_loop(path: Path, step: int) -> None:
    """Check for a crash loop: give up on a round that kills the process again and again at one step.

    Most likely it lacks memory.

    Being killed while getting on is no failure: a round may be resumed any number of times.
    """
    try:
        earlier = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        earlier = {"step": -1, "starts": 0}
    starts = earlier["starts"] + 1 if earlier["step"] == step else 1
    if starts > MAX_CRASHES:
        raise errors.RoundFailedError(
            f"the trainer died {MAX_CRASHES} times in a row at step {step}; most likely the system ended it for "
            "want of memory: set a smaller DMPO_ROUND__BATCH_PAIRS or DMPO_ROUND__RANK"
        )
    write_atomically(path, json.dumps({"step": step, "starts": starts}).encode())

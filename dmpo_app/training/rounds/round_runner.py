"""One round: its slices from checkpoint to checkpoint, from its settings to its publication.

    start_round -> RoundRunner -> run_slice, run_slice, ... -> FINISHED

A slice ends when its time is up, when the trainer is told to stop, or with the round. Whoever picks the round up later,
in this process or another, continues from the last checkpoint and arrives at the same weights.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from enum import StrEnum
from pathlib import Path

import torch

from dmpo_app.diffusion.adapter_files import AdapterWeights, read_adapter
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.lora import check_fit, expected_shapes
from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef
from dmpo_app.domain.round import RoundState
from dmpo_app.errors import AdapterError, RoundFailedError
from dmpo_app.io import write_atomically
from dmpo_app.labeling.quality.quality_service import weighing_from_settings
from dmpo_app.settings import RoundSettings, Settings
from dmpo_app.store import Store
from dmpo_app.training.data.dataset import is_held_out
from dmpo_app.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from dmpo_app.training.loop.checkpoint import Checkpoint
from dmpo_app.training.loop.steps import steps
from dmpo_app.training.loop.trainer import RoundTrainer
from dmpo_app.training.monitoring.latent_preview import read_preview
from dmpo_app.training.reference.prefetch import calibrate_settings, reference_folder
from dmpo_app.training.rounds.held_lease import TrainerLease
from dmpo_app.training.rounds.publishing import publish_or_refuse
from dmpo_app.training.rounds.round_plan import RoundPlan, load_plan, start_round
from dmpo_app.training.rounds.round_progress import (
    MetricsCallback,
    ProgressRecorder,
    ignore_metrics,
    start_round_tracker,
)
from dmpo_app.training.rounds.scorer_targets import AutomaticPlan, score_for_round

_MAX_PLAN_READS = 5
_log = logging.getLogger(__name__)


class SliceOutcome(StrEnum):
    """Outcome of a slice.

    MORE: call again. STOPPED: told to stop; checkpointed, someone resumes later. FINISHED: published or refused.
    """

    MORE = "more"
    STOPPED = "stopped"
    FINISHED = "finished"


class RoundRunner:
    """Runner of one started round on one denoiser, which it has to itself until `close`.

    `heartbeat` is called before every step and may raise to end things there (LeaseLostError); `should_stop` is asked
    before every step. Everything that is written shows `token`; metrics go to `track` as well. Of several processes in
    `group` each has a runner; only the main process's writes, asks and is asked.
    """

    def __init__(
        self,
        store: Store,
        base: BaseModelRef,
        denoiser: Denoiser,
        state: RoundState,
        *,
        token: int,
        heartbeat: Callable[[], None] = lambda: None,
        should_stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        track: MetricsCallback = ignore_metrics,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self._store = store
        self._base = base
        self._token = token
        self._heartbeat = heartbeat
        self._should_stop = should_stop
        self._clock = clock
        self._track = track
        self._folder = round_folder(store.home, state.id)
        self._group = group
        self._was_stopped = False
        self._plan = self._load_plan(state)
        self._trainer = RoundTrainer(
            self._plan,
            denoiser,
            parent=self._read_parent(denoiser),
            reference_folder=reference_folder(store.home),
            resume_from=Checkpoint.load(self._folder, plan=self._plan.key),
            preview=read_preview(store, base, denoiser, self._plan),
            group=group,
        )

    @property
    def step(self) -> int:
        """Steps done so far."""
        return self._trainer.step

    def run_slice(self, seconds: float | None = None) -> SliceOutcome:
        """Train for about `seconds` (None: as the round's settings say), then checkpoint; after the last step, finish.

        A round that exceeds a limit ends there and finishes with its best adapter so far.

        Raises RoundFailedError when training cannot go on, LeaseLostError, StorageFullError; the live adapter is
        untouched then.
        """
        settings = self._plan.settings
        report = ProgressRecorder(
            self._store,
            self._plan.round_id,
            first_step=self.step,
            token=self._token,
            clock=self._clock,
            track=self._track,
        )
        for step_done in steps(
            self._trainer,
            save=self._save,
            budget_seconds=settings.slice_seconds if seconds is None else seconds,
            should_stop=self._check_stop,
            clock=self._clock,
        ):
            if self._group.is_main:
                report.add(step_done)
        if not self._trainer.is_done:
            return SliceOutcome(self._group.broadcast(self._unfinished_outcome))
        self._group.broadcast(self._finish)
        return SliceOutcome.FINISHED

    def close(self) -> None:
        """Restore the denoiser to the base model. The checkpoint stays."""
        self._trainer.close()

    def _check_stop(self) -> bool:
        self._heartbeat()
        self._was_stopped = self._should_stop()
        return self._was_stopped

    def _unfinished_outcome(self) -> SliceOutcome:
        return SliceOutcome.STOPPED if self._was_stopped else SliceOutcome.MORE

    def _save(self, checkpoint: Checkpoint) -> None:
        self._heartbeat()
        checkpoint.save(self._folder, plan=self._plan.key)

    def _finish(self) -> None:
        trainer = self._trainer
        is_unusable = trainer.violation is not None and trainer.best is None
        outcome_text = publish_or_refuse(
            self._store,
            self._base,
            self._plan,
            None if is_unusable else trainer.result(),
            trainer.live_evaluation,
            trainer.violation,
            seconds=trainer.seconds,
            token=self._token,
        )
        _log.info("round %d %s", self._plan.round_id, outcome_text)
        self._trainer.save_reference()
        remove_checkpoint(self._store.home, self._plan.round_id)

    def _load_plan(self, state: RoundState) -> RoundPlan:
        """Load the same plan in all processes of the group: a vote may be undone between two of them reading it."""
        for _ in range(_MAX_PLAN_READS):
            plan = load_plan(self._store, self._base, state)
            if len(set(self._group.all_gather(lambda: plan.key))) == 1:  # noqa: B023 - called before the next turn
                return plan
        raise RoundFailedError(
            f"{self._group.world_size} processes read different votes for round {state.id}, {_MAX_PLAN_READS} times in "
            "a row; do they see the same home?"
        )

    def _read_parent(self, denoiser: Denoiser) -> AdapterWeights | None:
        """Read the version that was live when the round began; None for the base model, or when it cannot be used."""
        if self._plan.parent_version == BASE_VERSION:
            return None
        adapter = self._store.adapters.get(self._base, self._plan.parent_version)
        try:
            weights = read_adapter(adapter.folder, adapter.sha256)
            check_fit(weights.tensors, expected_shapes(denoiser.module, weights.spec))
        except AdapterError as error:
            _log.warning("round %d goes on without its parent: %s", self._plan.round_id, error)
            return None
        return weights


def round_folder(home: Path, round_id: int) -> Path:
    """The folder of a round's checkpoint."""
    return home / "rounds" / str(round_id)


def remove_checkpoint(home: Path, round_id: int) -> None:
    """Delete a finished round's working files. Those that cannot be removed only take space."""
    shutil.rmtree(round_folder(home, round_id), ignore_errors=True)


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
        runner = RoundRunner(store, base, denoiser, store.rounds.get(int(command)), token=_NO_TOKEN, group=group)
        try:
            while runner.run_slice() is SliceOutcome.MORE:
                pass
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
        lease: TrainerLease,
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

    def train(self, state: RoundState) -> SliceOutcome:
        """Start or resume the round and go on until it is over or a stop is asked for. Raises whatever ends it."""
        settings, automatic = self._prepare(state)
        round_state = start_round(
            self._store,
            self._base,
            state.id,
            trigger=state.trigger,
            settings=settings,
            environment=self._environment(),
            token=self._lease.token,
            question=self._settings.labeling.training_question,
            automatic=automatic,
            weighing=weighing_from_settings(self._settings),
        )
        _log.info("round %d: %d votes, attempt %d", round_state.id, round_state.num_votes, round_state.attempts)
        self._group.broadcast(lambda: str(round_state.id))
        config = round_state.config.get("settings", {})
        with closing(
            start_round_tracker(self._settings.trainer.tracker, self._store.home, round_state.id, config)
        ) as tracker:
            return self._run_slices(round_state, tracker)

    def _prepare(self, state: RoundState) -> tuple[RoundSettings, AutomaticPlan | None]:
        """Prepare a round's start: settings with every beta, and the evidence of scorers.

        A round that was started before keeps what it has.
        """
        settings = self._settings.round
        if state.started_at is not None:
            return settings, None
        votes = self._store.votes.training_votes(self._base, question=self._settings.labeling.training_question)
        calibrated = calibrate_settings(self._store, self._base, self._denoiser, settings, votes)
        automatic = score_for_round(
            self._store,
            self._base,
            settings.scoring,
            votes,
            may_train_on=lambda prompt: not is_held_out(prompt, share=settings.held_out_share, seed=settings.seed),
            device=self._denoiser.device.type,
            heartbeat=self._heartbeat,
        )
        return calibrated, automatic

    def _run_slices(self, round_state: RoundState, track: MetricsCallback) -> SliceOutcome:
        runner = RoundRunner(
            self._store,
            self._base,
            self._denoiser,
            round_state,
            token=self._lease.token,
            heartbeat=self._lease.renew,
            should_stop=self._should_stop,
            track=track,
            group=self._group,
        )
        try:
            check_crash_loop(round_folder(self._store.home, round_state.id) / "starts.json", runner.step)
            outcome = SliceOutcome.MORE
            while outcome is SliceOutcome.MORE:
                outcome = runner.run_slice()
            return outcome
        finally:
            runner.close()

    def _heartbeat(self) -> None:
        """Renew the lease, and send a heartbeat to the processes that wait to train along."""
        self._lease.renew()
        self._group.broadcast(lambda: IDLE)

    def _environment(self) -> dict[str, str | int]:
        return {
            "processes": self._group.world_size,
            "device": self._denoiser.device.type,
            "dtype": self._denoiser.precision,
            "num_threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


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
        raise RoundFailedError(
            f"the trainer died {MAX_CRASHES} times in a row at step {step}; most likely the system ended it for "
            "want of memory: set a smaller DMPO_ROUND__BATCH_PAIRS or DMPO_ROUND__RANK"
        )
    write_atomically(path, json.dumps({"step": step, "starts": starts}).encode())

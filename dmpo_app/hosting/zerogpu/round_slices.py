"""Training in people's GPU minutes: a slice of a round for every minute, from checkpoint to checkpoint.

The server decides, writes and publishes; the process with the GPU only computes. When that is killed the round is as
its last checkpoint has it, and nothing that it had in hand can become the live version.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

from dmpo_app.diffusion.adapter_files import remove_staging_folders
from dmpo_app.domain.lineage import BaseModelRef, RoundState, TrainerState, TrainingVote
from dmpo_app.errors import (
    BusyError,
    DamagedFileError,
    GpuAbortedError,
    LeaseLostError,
    RoundFailedError,
    StudioError,
)
from dmpo_app.hosting.zerogpu.gpu_calls import GpuJobRunner
from dmpo_app.hosting.zerogpu.train_job import CalibrationJob, CalibrationResult, SliceEnded, SliceJob, StepsTrained
from dmpo_app.objective import load_objective
from dmpo_app.settings import RoundSettings, Settings
from dmpo_app.store import Store
from dmpo_app.training.loop.checkpoint import Checkpoint
from dmpo_app.training.monitoring.latent_preview import pairs_for_fit
from dmpo_app.training.rounds.round_plan import RoundPlan, build_plan, parent_files, read_plan_inputs, start_or_resume
from dmpo_app.training.rounds.round_progress import ProgressRecorder
from dmpo_app.training.rounds.round_runner import TrainerLease, publish_or_refuse, remove_checkpoint, round_folder
from dmpo_app.training.rounds.scheduler import check_crash_loop, next_round

_log = logging.getLogger(__name__)


class ZeroGpuTrainer:
    """Trainer on ZeroGPU: the rounds of one lineage, a slice at a time. Implements `TrainerSupervisor`."""

    def __init__(
        self,
        store: Store,
        base: BaseModelRef,
        settings: Settings,
        gpu: GpuJobRunner,
        *,
        owner: str,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._base = base
        self._settings = settings
        self._gpu = gpu
        self._owner = owner
        self._now = now

    @property
    def state(self) -> TrainerState:
        return TrainerState(running=True, pid=None, restarts=0)

    def next_round(self) -> RoundState | None:
        """The round that the next GPU minute would train."""
        return next_round(self._store, self._base, self._settings, self._now())

    def train_slice(self, state: RoundState, seconds: float) -> Iterator[RoundState]:
        """Train one slice of the round, in a person's event; yield its state every second or two and at the end.

        Raises GpuRefusedError and GpuAbortedError, and then the round waits as its last checkpoint has it; BusyError
        while another slice trains; RoundFailedError when the round is over for good, which is recorded.
        """
        lease = TrainerLease(
            self._store, self._base, self._owner, seconds=self._settings.trainer.lease_seconds, now=self._now
        )
        if not lease.acquire():
            raise BusyError("somebody else's GPU minute is training this round just now; try again in a moment")
        try:
            remove_staging_folders(self._store.adapters.root(self._base))
            yield from self._run_slice(state, lease, seconds)
        except LeaseLostError:
            lease.mark_lost()
            raise BusyError("another trainer has taken over this lineage; this slice was given up") from None
        except DamagedFileError as error:
            self._store.damage.record(error)
            raise StudioError(
                "a pair of this round has lost its tensors; the next minute goes on without it"
            ) from error
        except RoundFailedError as error:
            _log.error("round %d failed: %s", state.id, error)
            self._store.rounds.fail(state.id, str(error), token=lease.token, final=True)
            remove_checkpoint(self._store.home, state.id)
            raise
        finally:
            lease.release()

    def _run_slice(self, state: RoundState, lease: TrainerLease, seconds: float) -> Iterator[RoundState]:
        round_state = self._start_round(state, lease)
        yield round_state
        plan_inputs = read_plan_inputs(self._store, self._base, round_state)
        plan = build_plan(plan_inputs, self._store.files)
        folder = round_folder(self._store.home, round_state.id)
        checkpoint = Checkpoint.load(folder, plan=plan.key)
        first_step = checkpoint.step if checkpoint else 0
        job = SliceJob(
            home=self._store.home,
            plan_inputs=plan_inputs,
            parent=parent_files(self._store, self._base, plan),
            preview_pairs=tuple(pairs_for_fit(self._store, self._base, plan)),
            seconds=seconds,
            checkpoint_seconds=self._settings.hosting.checkpoint_seconds,
        )
        slice_end: SliceEnded | None = None
        try:
            for event in self._record_events(job, plan, first_step, lease):
                if isinstance(event, SliceEnded):
                    slice_end = event
                yield self._store.rounds.get(round_state.id)
        except GpuAbortedError:
            check_crash_loop(folder / "starts.json", first_step)
            raise
        if slice_end is not None and slice_end.is_round_done:
            lease.renew()
            self._finish(plan, folder, slice_end, lease.token)
            yield self._store.rounds.get(round_state.id)

    def _record_events(
        self, job: SliceJob, plan: RoundPlan, first_step: int, lease: TrainerLease
    ) -> Iterator[StepsTrained | SliceEnded]:
        """Run the slice and yield its events; their steps are recorded for the page's curves before that."""
        report = ProgressRecorder(
            self._store,
            plan.round_id,
            first_step=first_step,
            token=lease.token,
            clock=time.monotonic,
        )
        with closing(self._gpu.run(job)) as events:
            for event in events:
                lease.renew()
                if isinstance(event, StepsTrained):
                    for step_done in event.steps:
                        report.add(step_done)
                if isinstance(event, StepsTrained | SliceEnded):
                    yield event

    def _finish(self, plan: RoundPlan, folder: Path, slice_end: SliceEnded, token: int) -> None:
        """Publish or refuse the adapter of the last checkpoint, which must be at the step that the slice reported."""
        checkpoint = Checkpoint.load(folder, plan=plan.key)
        if checkpoint is None or checkpoint.step != slice_end.step:
            raise StudioError(
                f"round {plan.round_id} ended at step {slice_end.step}, but its checkpoint does not; the next slice "
                "goes on from what there is"
            )
        outcome_text = publish_or_refuse(
            self._store,
            self._base,
            plan,
            checkpoint.best,
            checkpoint.live_evaluation,
            checkpoint.monitor.violation,
            seconds=checkpoint.seconds,
            token=token,
            is_held=self._settings.judging.mode == "hold",
        )
        _log.info("round %d %s", plan.round_id, outcome_text)
        remove_checkpoint(self._store.home, plan.round_id)

    def _start_round(self, state: RoundState, lease: TrainerLease) -> RoundState:
        return start_or_resume(
            self._store,
            self._base,
            self._settings,
            state,
            calibrate=self._calibrate,
            scoring_device="cpu",  # the server has no other
            environment={"device": "zerogpu"},
            token=lease.token,
            heartbeat=lease.renew,
        )

    def _calibrate(self, votes: Sequence[TrainingVote]) -> RoundSettings:
        """Calibrate the betas that are not set; a GPU is asked for only when there is one."""
        settings = self._settings.round
        soft = load_objective(settings.objective, settings.objective_options).soft
        if settings.beta is not None and (soft or settings.margin_beta is not None):
            return settings
        for event in self._gpu.run(CalibrationJob(self._store.home, self._base, settings, tuple(votes))):
            if isinstance(event, CalibrationResult):
                return settings.model_copy(update={"beta": event.beta, "margin_beta": event.margin_beta})
        raise StudioError("the GPU process ended without having found a beta; try again")

"""Rounds in borrowed GPU time: a slice for every minute that somebody lends, from checkpoint to checkpoint.

The server decides, writes and publishes; the process with the GPU only computes. When that is killed the round is as
its last checkpoint has it, and nothing that it had in hand can become the live version.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

from dmpo_app.diffusion.adapter_files import remove_leftovers
from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef
from dmpo_app.domain.round import RoundState, TrainerState
from dmpo_app.errors import Busy, GpuAborted, LeaseLost, RoundFailed, StudioError
from dmpo_app.hosting.zerogpu.gpu_calls import BorrowedGpu
from dmpo_app.hosting.zerogpu.train_job import Calibrated, CalibrationJob, SliceEnded, SliceJob, Trained
from dmpo_app.labeling.quality.quality_service import weighing_of
from dmpo_app.objective import objective_named
from dmpo_app.settings import RoundSettings, Settings
from dmpo_app.store import Store
from dmpo_app.training.data.dataset import is_held_out
from dmpo_app.training.loop.checkpoint import Checkpoint
from dmpo_app.training.monitoring.latent_preview import fitted_pairs
from dmpo_app.training.rounds.held_lease import HeldLease
from dmpo_app.training.rounds.publishing import finish
from dmpo_app.training.rounds.round_plan import RoundPlan, plan_of, read_facts, start_round
from dmpo_app.training.rounds.round_progress import ProgressReport
from dmpo_app.training.rounds.round_runner import count_start, remove_checkpoint, round_folder
from dmpo_app.training.rounds.scheduler import next_round
from dmpo_app.training.rounds.scorer_targets import score_for_round

_log = logging.getLogger(__name__)


class LentRounds:
    """Trains the rounds of one lineage, a slice at a time. Implements `domain.TrainerSupervisor`: always there."""

    def __init__(
        self,
        store: Store,
        base: BaseModelRef,
        settings: Settings,
        gpu: BorrowedGpu,
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
        """The round that a lent minute would be for."""
        return next_round(self._store, self._base, self._settings, self._now())

    def advance(self, state: RoundState, seconds: float) -> Iterator[RoundState]:
        """One slice of the round: how it stands, every second or two and at the end. In a person's event.

        Raises GpuRefused and GpuAborted, and then the round waits as its last checkpoint has it; Busy while another
        slice trains; RoundFailed when the round is over for good, which is recorded.
        """
        lease = HeldLease(
            self._store, self._base, self._owner, seconds=self._settings.trainer.lease_seconds, now=self._now
        )
        if not lease.acquire():
            raise Busy("somebody else's GPU minute is training this round just now; try again in a moment")
        try:
            remove_leftovers(self._store.adapters.root(self._base))
            yield from self._slice(state, lease, seconds)
        except LeaseLost:
            lease.forget()
            raise Busy("another trainer has taken over this lineage; this slice was given up") from None
        except RoundFailed as error:
            _log.error("round %d failed: %s", state.id, error)
            self._store.rounds.fail(state.id, str(error), token=lease.token, final=True)
            remove_checkpoint(self._store.home, state.id)
            raise
        finally:
            lease.release()

    def _slice(self, wanted: RoundState, lease: HeldLease, seconds: float) -> Iterator[RoundState]:
        started = self._started(wanted, lease)
        yield started
        facts = read_facts(self._store, self._base, started)
        plan = plan_of(facts, self._store.files)
        folder = round_folder(self._store.home, started.id)
        saved = Checkpoint.load(folder, plan=plan.key)
        first_step = saved.step if saved else 0
        job = SliceJob(
            home=self._store.home,
            facts=facts,
            parent=self._parent(plan),
            preview_pairs=tuple(fitted_pairs(self._store, self._base, plan)),
            seconds=seconds,
            checkpoint_seconds=self._settings.hosting.checkpoint_seconds,
        )
        ended: SliceEnded | None = None
        try:
            for event in self._recorded(job, plan, first_step, lease):
                if isinstance(event, SliceEnded):
                    ended = event
                yield self._store.rounds.get(started.id)
        except GpuAborted:
            count_start(folder / "starts.json", first_step)
            raise
        if ended is not None and ended.done:
            lease.renew()
            self._finish(plan, folder, ended, lease.token)
            yield self._store.rounds.get(started.id)

    def _recorded(
        self, job: SliceJob, plan: RoundPlan, first_step: int, lease: HeldLease
    ) -> Iterator[Trained | SliceEnded]:
        """The slice's events, with their steps on the page's curves already."""
        report = ProgressReport(
            self._store,
            plan.round_id,
            first_step=first_step,
            steps=plan.settings.num_steps,
            token=lease.token,
            clock=time.monotonic,
        )
        with closing(self._gpu.run(job)) as events:
            for event in events:
                lease.renew()
                if isinstance(event, Trained):
                    for done in event.steps:
                        report.add(
                            done.step, done.result, held_out_loss=done.held_out_loss, drift=done.drift, last=done.last
                        )
                if isinstance(event, Trained | SliceEnded):
                    yield event

    def _finish(self, plan: RoundPlan, folder: Path, ended: SliceEnded, token: int) -> None:
        """Publish or refuse what the last checkpoint holds: it is what the slice says it is, or nothing happens."""
        saved = Checkpoint.load(folder, plan=plan.key)
        if saved is None or saved.step != ended.step:
            raise StudioError(
                f"round {plan.round_id} ended at step {ended.step}, but its checkpoint does not; the next slice "
                "goes on from what there is"
            )
        came_to = finish(
            self._store,
            self._base,
            plan,
            saved.best,
            saved.live,
            saved.watch.passed,
            seconds=saved.seconds,
            token=token,
        )
        _log.info("round %d %s", plan.round_id, came_to)
        remove_checkpoint(self._store.home, plan.round_id)

    def _started(self, state: RoundState, lease: HeldLease) -> RoundState:
        automatic = None
        settings = self._settings.round
        question = self._settings.labeling.training_question
        if state.started_at is None:
            votes = self._store.votes.training_votes(self._base, question=question)
            settings = self._calibrated(CalibrationJob(self._store.home, self._base, settings, tuple(votes)))
            automatic = score_for_round(
                self._store,
                self._base,
                settings.scoring,
                votes,
                may_train_on=lambda prompt: not is_held_out(prompt, share=settings.held_out_share, seed=settings.seed),
                device="cpu",  # the server has no other
                heartbeat=lease.renew,
            )
        return start_round(
            self._store,
            self._base,
            state.id,
            trigger=state.trigger,
            settings=settings,
            environment={"device": "zerogpu"},
            token=lease.token,
            question=question,
            automatic=automatic,
            weighing=weighing_of(self._settings),
        )

    def _calibrated(self, job: CalibrationJob) -> RoundSettings:
        """The settings with every beta; a GPU is asked for only when one is open."""
        settings = job.settings
        soft = objective_named(settings.objective, settings.objective_options).soft
        if settings.beta is not None and (soft or settings.margin_beta is not None):
            return settings
        for event in self._gpu.run(job):
            if isinstance(event, Calibrated):
                return job.settings.model_copy(update={"beta": event.beta, "margin_beta": event.margin_beta})
        raise StudioError("the GPU process ended without having found a beta; try again")

    def _parent(self, plan: RoundPlan) -> tuple[Path, str] | None:
        if plan.parent_version == BASE_VERSION:
            return None
        adapter = self._store.adapters.get(self._base, plan.parent_version)
        return adapter.folder, adapter.sha256

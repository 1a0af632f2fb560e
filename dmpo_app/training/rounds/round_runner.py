"""A round as a sequence of slices: train for a while, checkpoint, go on; at the end publish or refuse, once.

    start_round -> RoundRunner -> run_slice, run_slice, ... -> FINISHED

A slice ends when its time is up, when the trainer is told to stop, or with the round. Whoever picks the round up later,
in this process or another, continues from the last checkpoint and arrives at the same weights.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from dmpo_app.diffusion.adapter_files import AdapterWeights, read_adapter
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.lora import check_fit, expected_shapes
from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef
from dmpo_app.domain.round import RoundState
from dmpo_app.errors import AdapterProblem, RoundFailed
from dmpo_app.store import Store
from dmpo_app.training.distributed.group import ALONE, Group
from dmpo_app.training.loop.checkpoint import Checkpoint
from dmpo_app.training.loop.trainer import RoundTrainer
from dmpo_app.training.monitoring.latent_preview import read_preview
from dmpo_app.training.reference.prefetch import reference_folder
from dmpo_app.training.rounds.publishing import finish
from dmpo_app.training.rounds.round_plan import RoundPlan, load_plan
from dmpo_app.training.rounds.round_progress import ProgressReport, Track, not_tracked

_READS = 5
_log = logging.getLogger(__name__)


class SliceOutcome(StrEnum):
    """MORE: call again. STOPPED: told to stop; checkpointed, someone resumes later. FINISHED: published or refused."""

    MORE = "more"
    STOPPED = "stopped"
    FINISHED = "finished"


class RoundRunner:
    """One started round on one denoiser, which it has to itself until `close`.

    `heartbeat` is called before every step and may raise to end things there (LeaseLost); `should_stop` is asked
    before every step. Everything that is written shows `token`; what is recorded goes to `track` as well. Of several
    processes in `group` each has a runner, and the leading one's alone writes, asks and is asked.
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
        track: Track = not_tracked,
        group: Group = ALONE,
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

        A round that passes a limit ends there and goes on to its end with what it had kept by then.

        Raises RoundFailed when training cannot go on, LeaseLost, StorageFull; the live adapter is untouched then.
        """
        settings, started = self._plan.settings, self._clock()
        budget = settings.slice_seconds if seconds is None else seconds
        stopped = self._train_until(started + budget)
        self._trainer.seconds += self._clock() - started
        checkpoint = self._trainer.checkpoint()
        self._group.led(lambda: self._save(checkpoint))
        if not self._trainer.is_done:
            return SliceOutcome.STOPPED if stopped else SliceOutcome.MORE
        self._group.led(self._finish)
        return SliceOutcome.FINISHED

    def close(self) -> None:
        """Leave the denoiser as the base model. The checkpoint stays."""
        self._trainer.close()

    def _train_until(self, deadline: float) -> bool:
        """True when told to stop. At least one step is made otherwise, so that any budget gets on."""
        steps = self._plan.settings.num_steps
        report = ProgressReport(
            self._store,
            self._plan.round_id,
            first_step=self.step,
            steps=steps,
            token=self._token,
            clock=self._clock,
            track=self._track,
        )
        while not self._trainer.is_done:
            if self._group.led(self._is_told_to_stop):
                return True
            result = self._trainer.train_step()
            drift = self._trainer.look_if_due()
            evaluation = self._trainer.evaluate_if_due()
            held_out_loss = evaluation.loss if evaluation else None
            if self._group.leads:
                report.add(self.step, result, held_out_loss=held_out_loss, drift=drift, last=self._trainer.is_done)
            if self._group.led(lambda: self._clock() >= deadline):
                break
        return False

    def _is_told_to_stop(self) -> bool:
        self._heartbeat()
        return self._should_stop()

    def _save(self, checkpoint: Checkpoint) -> None:
        self._heartbeat()
        checkpoint.save(self._folder, plan=self._plan.key)

    def _finish(self) -> None:
        trainer = self._trainer
        limited = trainer.passed is not None and trainer.best is None
        came_to = finish(
            self._store,
            self._base,
            self._plan,
            None if limited else trainer.result(),
            trainer.live,
            trainer.passed,
            seconds=trainer.seconds,
            token=self._token,
        )
        _log.info("round %d %s", self._plan.round_id, came_to)
        self._trainer.save_reference()
        remove_checkpoint(self._store.home, self._plan.round_id)

    def _load_plan(self, state: RoundState) -> RoundPlan:
        """The same in all processes of the group: a vote may be taken back between two of them reading it."""
        for _ in range(_READS):
            plan = load_plan(self._store, self._base, state)
            if len(set(self._group.share(lambda: plan.key))) == 1:  # noqa: B023 - called before the next turn
                return plan
        raise RoundFailed(
            f"{self._group.size} processes read different votes for round {state.id}, {_READS} times in a row; do they "
            "see the same home?"
        )

    def _read_parent(self, denoiser: Denoiser) -> AdapterWeights | None:
        """The version that was live when the round began; None for the base model, or when it cannot be used."""
        if self._plan.parent_version == BASE_VERSION:
            return None
        adapter = self._store.adapters.get(self._base, self._plan.parent_version)
        try:
            weights = read_adapter(adapter.folder, adapter.sha256)
            check_fit(weights.tensors, expected_shapes(denoiser.module, weights.spec))
        except AdapterProblem as error:
            _log.warning("round %d goes on without its parent: %s", self._plan.round_id, error)
            return None
        return weights


def round_folder(home: Path, round_id: int) -> Path:
    """Where a round keeps its checkpoint."""
    return home / "rounds" / str(round_id)


def remove_checkpoint(home: Path, round_id: int) -> None:
    """Forget a finished round's working files. Those that cannot be removed only take space."""
    shutil.rmtree(round_folder(home, round_id), ignore_errors=True)

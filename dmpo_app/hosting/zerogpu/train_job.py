"""One slice of a round in a process that has the GPU for a minute: no database, plain values in, plain values out.

Such a process may be forked from the server, and SQLite must not be used across a fork: what a slice needs to know
comes with its job, what it learns goes out as events, and what the next slice continues from is the checkpoint's file.
Whoever sent the job decides what becomes of the round.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from dmpo_app.diffusion.adapter_files import AdapterWeights, read_adapter
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.lora import check_fit, expected_shapes
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.round import TrainingPair, TrainingVote
from dmpo_app.errors import AdapterProblem
from dmpo_app.settings import RoundSettings
from dmpo_app.store.files import Files
from dmpo_app.training.data.dataset import TensorFiles
from dmpo_app.training.loop.checkpoint import Checkpoint
from dmpo_app.training.loop.step import StepResult
from dmpo_app.training.loop.trainer import RoundTrainer
from dmpo_app.training.monitoring.latent_preview import preview_of
from dmpo_app.training.reference.prefetch import calibrated_settings, reference_folder
from dmpo_app.training.rounds.round_plan import PlanFacts, RoundPlan, plan_of
from dmpo_app.training.rounds.round_runner import round_folder

EVENT_SECONDS = 1.0
"""Whoever lends the GPU sees something move this often."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HomeFiles:
    """The files of a home without its database."""

    home: Path
    files: TensorFiles

    @classmethod
    def of(cls, home: Path) -> HomeFiles:
        return cls(home, Files(home))


@dataclass(frozen=True, slots=True)
class CalibrationJob:
    """Find the betas that `settings` leave open from the base model's errors on the pairs of `votes`."""

    home: Path
    base: BaseModelRef
    settings: RoundSettings
    votes: tuple[TrainingVote, ...]
    seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class SliceJob:
    """Train the round of `facts` for `seconds` from its last checkpoint on, with a new checkpoint at least as often as
    `checkpoint_seconds` says and at the end.

    `parent`: folder and sha256 of the version that the round is measured against; None for the base model.
    """

    home: Path
    facts: PlanFacts
    parent: tuple[Path, str] | None
    preview_pairs: tuple[TrainingPair, ...]
    seconds: float
    checkpoint_seconds: float


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The betas for `CalibrationJob`."""

    beta: float | None
    margin_beta: float | None


@dataclass(frozen=True, slots=True)
class StepDone:
    """A finished step, counted from 1, with what a look after it saw."""

    step: int
    result: StepResult
    held_out_loss: float | None
    drift: Mapping[str, float]
    last: bool


@dataclass(frozen=True, slots=True)
class Trained:
    """Steps since the last event; `saved` is the step of the newest checkpoint."""

    steps: tuple[StepDone, ...]
    saved: int


@dataclass(frozen=True, slots=True)
class SliceEnded:
    """The slice is over and checkpointed at `step`; `done` when no step of the round is left."""

    step: int
    done: bool


def calibrate(job: CalibrationJob, denoiser: Denoiser) -> Calibrated:
    """The betas for a round. Raises RoundFailed, StorageFull."""
    found = calibrated_settings(HomeFiles.of(job.home), job.base, denoiser, job.settings, job.votes)
    return Calibrated(found.beta, found.margin_beta)


def run_slice(
    job: SliceJob, denoiser: Denoiser, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Trained | SliceEnded]:
    """Train one slice. The denoiser is the base model again afterwards, also when the iterator is closed early.

    Raises RoundFailed when training cannot go on, StorageFull; the last checkpoint stands then.
    """
    started = clock()
    home = HomeFiles.of(job.home)
    plan = plan_of(job.facts, home.files)
    folder = round_folder(job.home, plan.round_id)
    trainer = RoundTrainer(
        plan,
        denoiser,
        parent=_read_parent(job, plan, denoiser),
        reference_folder=reference_folder(job.home),
        resume_from=Checkpoint.load(folder, plan=plan.key),
        preview=preview_of(job.preview_pairs, Files(job.home).read_image, denoiser, plan),
    )
    with closing(trainer):
        yield from _steps(trainer, plan, folder, job, started, clock)


def _steps(
    trainer: RoundTrainer,
    plan: RoundPlan,
    folder: Path,
    job: SliceJob,
    started: float,
    clock: Callable[[], float],
) -> Iterator[Trained | SliceEnded]:
    counted = saved_at = told_at = started
    saved, done = trainer.step, list[StepDone]()

    def save() -> None:
        nonlocal counted, saved, saved_at
        trainer.seconds += clock() - counted
        trainer.checkpoint().save(folder, plan=plan.key)
        counted = saved_at = clock()
        saved = trainer.step

    # At least one step in any slice, so that any budget gets on.
    while not trainer.is_done and (not done or clock() - started < job.seconds):
        done.append(_one_step(trainer))
        if clock() - saved_at >= job.checkpoint_seconds:
            save()
        if clock() - told_at >= EVENT_SECONDS:
            yield Trained(tuple(done), saved)
            told_at, done = clock(), []
            if clock() - started >= job.seconds:
                break
    save()
    if done:
        yield Trained(tuple(done), saved)
    if trainer.is_done:
        trainer.save_reference()
    yield SliceEnded(trainer.step, trainer.is_done)


def _one_step(trainer: RoundTrainer) -> StepDone:
    result = trainer.train_step()
    drift = trainer.look_if_due()
    evaluation = trainer.evaluate_if_due()
    held_out_loss = evaluation.loss if evaluation else None
    return StepDone(trainer.step, result, held_out_loss, dict(drift), trainer.is_done)


def _read_parent(job: SliceJob, plan: RoundPlan, denoiser: Denoiser) -> AdapterWeights | None:
    if job.parent is None:
        return None
    try:
        weights = read_adapter(*job.parent)
        check_fit(weights.tensors, expected_shapes(denoiser.module, weights.spec))
    except AdapterProblem as error:
        _log.warning("round %d goes on without its parent: %s", plan.round_id, error)
        return None
    return weights

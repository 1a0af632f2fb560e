"""The training job of ZeroGPU: one slice of a round in a process without a database, plain values in and out.

Such a process may be forked from the server, and SQLite must not be used across a fork: a slice's inputs come with its
job, its results go out as events, and the next slice continues from the checkpoint's file.
Whoever sent the job decides what becomes of the round.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.domain.lineage import BaseModelRef, TrainingPair, TrainingVote
from dmpo_app.settings import RoundSettings
from dmpo_app.store.files import Files
from dmpo_app.training.data.dataset import TensorFiles
from dmpo_app.training.loop.checkpoint import Checkpoint
from dmpo_app.training.loop.steps import StepDone, steps
from dmpo_app.training.loop.trainer import RoundTrainer
from dmpo_app.training.monitoring.latent_preview import build_preview
from dmpo_app.training.reference.calibration import calibrate_settings
from dmpo_app.training.reference.reference_cache import reference_folder
from dmpo_app.training.rounds.round_plan import PlanInputs, RoundPlan, build_plan, read_parent
from dmpo_app.training.rounds.round_runner import round_folder

EVENT_SECONDS = 1.0
"""The person whose GPU minute it is sees something move this often."""


@dataclass(frozen=True, slots=True)
class LocalHomeFiles:
    """The files of a home without its database."""

    home: Path
    files: TensorFiles

    @classmethod
    def from_home(cls, home: Path) -> Self:
        return cls(home, Files(home))


@dataclass(frozen=True, slots=True)
class CalibrationJob:
    """Job that calibrates the betas `settings` leave open, from the base model's errors on the pairs of `votes`."""

    home: Path
    base: BaseModelRef
    settings: RoundSettings
    votes: tuple[TrainingVote, ...]
    seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class SliceJob:
    """Job that trains a round for `seconds` from its last checkpoint on.

    It writes a checkpoint at least every `checkpoint_seconds` and at the end.

    `parent`: folder and sha256 of the version that the round is measured against; None for the base model.
    """

    home: Path
    plan_inputs: PlanInputs
    parent: tuple[Path, str] | None
    preview_pairs: tuple[TrainingPair, ...]
    seconds: float
    checkpoint_seconds: float


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """The result of a `CalibrationJob`: the betas."""

    beta: float | None
    margin_beta: float | None


@dataclass(frozen=True, slots=True)
class StepsTrained:
    """Event with the steps since the last one; `checkpoint_step` is that of the newest checkpoint."""

    steps: tuple[StepDone, ...]
    checkpoint_step: int


@dataclass(frozen=True, slots=True)
class SliceEnded:
    """Event of a slice that is over and checkpointed at `step`; `is_round_done` when no step of the round is left."""

    step: int
    is_round_done: bool


def calibrate(job: CalibrationJob, denoiser: Denoiser) -> CalibrationResult:
    """Calibrate the betas of a round. Raises RoundFailedError, StorageFullError."""
    calibrated = calibrate_settings(LocalHomeFiles.from_home(job.home), job.base, denoiser, job.settings, job.votes)
    return CalibrationResult(calibrated.beta, calibrated.margin_beta)


def run_slice(
    job: SliceJob, denoiser: Denoiser, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[StepsTrained | SliceEnded]:
    """Train one slice. The denoiser is the base model again afterwards, also when the iterator is closed early.

    Raises RoundFailedError when training cannot go on, StorageFullError; the last checkpoint stands then.
    """
    started = clock()
    home = LocalHomeFiles.from_home(job.home)
    plan = build_plan(job.plan_inputs, home.files)
    folder = round_folder(job.home, plan.round_id)
    trainer = RoundTrainer(
        plan,
        denoiser,
        parent=read_parent(job.parent, plan, denoiser),
        reference_folder=reference_folder(job.home),
        resume_from=Checkpoint.load(folder, plan=plan.key),
        preview=build_preview(job.preview_pairs, Files(job.home).read_image, denoiser, plan),
    )
    with closing(trainer):
        yield from _train_steps(trainer, plan, folder, job, started, clock)


def _train_steps(
    trainer: RoundTrainer,
    plan: RoundPlan,
    folder: Path,
    job: SliceJob,
    started: float,
    clock: Callable[[], float],
) -> Iterator[StepsTrained | SliceEnded]:
    checkpoint_step, reported_at, unreported = trainer.step, started, list[StepDone]()

    def save(checkpoint: Checkpoint) -> None:
        nonlocal checkpoint_step
        checkpoint.save(folder, plan=plan.key)
        checkpoint_step = checkpoint.step

    for step_done in steps(
        trainer,
        save=save,
        checkpoint_seconds=job.checkpoint_seconds,
        budget_seconds=job.seconds,
        clock=clock,
        started_at=started,
    ):
        unreported.append(step_done)
        if clock() - reported_at >= EVENT_SECONDS:
            yield StepsTrained(tuple(unreported), checkpoint_step)
            reported_at, unreported = clock(), []
    if unreported:
        yield StepsTrained(tuple(unreported), checkpoint_step)
    if trainer.is_done:
        trainer.save_reference()
    yield SliceEnded(trainer.step, trainer.is_done)

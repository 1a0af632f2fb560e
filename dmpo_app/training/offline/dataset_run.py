"""A training on an encoded data set: its plan, and its run from checkpoint to checkpoint."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from dmpo_app.diffusion.adapter_files import remove_staging_folders
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.domain.lineage import BASE_VERSION
from dmpo_app.errors import RoundFailedError
from dmpo_app.io.files import sha256_hex, write_atomically
from dmpo_app.objective import soft_target
from dmpo_app.settings import RoundSettings
from dmpo_app.store.files import Files
from dmpo_app.training.data.dataset import PairDataset, PairTensors, is_held_out
from dmpo_app.training.data.encoding import EncodingCounts, PairTable
from dmpo_app.training.data.training_examples import keyed_seed
from dmpo_app.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from dmpo_app.training.loop.checkpoint import FILE_NAME, Checkpoint
from dmpo_app.training.loop.steps import StepDone, steps
from dmpo_app.training.loop.trainer import RoundTrainer
from dmpo_app.training.monitoring.early_stopping import StepResult
from dmpo_app.training.reference.calibration import MAX_PAIRS, calibrate_betas
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.reference_cache import ReferenceCache
from dmpo_app.training.rounds.round_plan import RoundPlan
from dmpo_app.training.rounds.round_runner import (
    compute_metrics,
    is_proven,
    judge_round,
    reason_to_refuse,
    stage_adapter,
)

_log = logging.getLogger(__name__)

MIN_STEPS, MAX_STEPS = 80, 2000
"""Bounds of the default number of steps, which is one pass over the data. 80 is a round's usual number; 2,000 that of
the third-party scripts that train on Pick-a-Pic, whose batches are larger."""
DEFAULT_HELD_OUT = 512
"""Held-out pairs where no share is set: every evaluation of them costs as much as some steps."""


def fill_defaults(settings: RoundSettings, num_pairs: int) -> RoundSettings:
    """Fill in defaults that depend on the number of pairs; settings that are set stay.

    Held out is the usual share but not more than about 512 pairs; steps make one pass over the others, 80 at least and
    2,000 at most; the held-out pairs are evaluated twenty times on the way, not more often than every 20 steps.
    """
    explicit_fields = settings.model_fields_set
    updates: dict[str, Any] = {}
    share = settings.held_out_share
    if "held_out_share" not in explicit_fields:
        share = updates["held_out_share"] = min(share, DEFAULT_HELD_OUT / max(num_pairs, 1))
    steps = settings.num_steps
    if "num_steps" not in explicit_fields:
        steps_per_epoch = -(-round(num_pairs * (1 - share)) // settings.batch_pairs)
        steps = updates["num_steps"] = min(max(steps_per_epoch, MIN_STEPS), MAX_STEPS)
    if "evaluate_every" not in explicit_fields:
        updates["evaluate_every"] = max(settings.evaluate_every, steps // 20)
    return settings.model_copy(update=updates)


def split_pairs(prompts: Sequence[str], settings: RoundSettings) -> tuple[list[int], list[int]]:
    """Split pairs by prompt: indices to train on and held-out ones; all are trained on when all would be held out."""
    held_out_flags = [is_held_out(prompt, share=settings.held_out_share, seed=settings.seed) for prompt in prompts]
    train = [number for number, held_out in enumerate(held_out_flags) if not held_out]
    if not train:
        return list(range(len(prompts))), []
    return train, [number for number, held_out in enumerate(held_out_flags) if held_out]


def dataset_from_table(table: PairTable, pair_indices: Sequence[int], files: Files, *, alpha: float) -> PairDataset:
    """Build a dataset of some pairs of the table; a pair's id is its index in the table. No tensor is read."""
    packed = table.files.select(pair_indices)
    votes = torch.tensor([table.num_votes[number] for number in pair_indices])
    wins = torch.tensor([table.wins_a[number] for number in pair_indices]) * votes
    return PairDataset(
        pair_ids=tuple(pair_indices),
        prompts=tuple(table.prompts[number] for number in pair_indices),
        files=packed,
        targets=soft_target(wins, votes, alpha=alpha),
        weights=votes,
        vote_shares=torch.tensor([table.wins_a[number] for number in pair_indices]),
        tensors=PairTensors(files),
    )


def calibration_pairs(table: PairTable, files: Files, *, alpha: float) -> PairDataset:
    """The dataset that beta is calibrated on: the first pairs."""
    return dataset_from_table(table, range(min(MAX_PAIRS, len(table.prompts))), files, alpha=alpha)


def plan_key(values: Any) -> str:
    """Compute a plan's key: the sha256 (hex) of JSON values."""
    return sha256_hex(json.dumps(values, sort_keys=True).encode())


def make_plan(
    table: PairTable,
    files: Files,
    denoiser: Denoiser,
    settings: RoundSettings,
    *,
    base_fingerprint: str,
    key: str,
) -> RoundPlan:
    """Make the plan of a training with settings whose betas are known."""
    train, held_out = split_pairs(table.prompts, settings)
    return RoundPlan(
        round_id=1,
        base_fingerprint=base_fingerprint,
        seed=keyed_seed(settings.seed, "offline") % 2**31,
        parent_version=BASE_VERSION,
        settings=settings,
        spec=LoraSpec.from_settings(settings, denoiser.family),
        train=dataset_from_table(table, train, files, alpha=settings.alpha),
        held_out=dataset_from_table(table, held_out, files, alpha=settings.alpha) if held_out else None,
        train_vote_ids=tuple(train),
        held_out_vote_ids=tuple(held_out),
        config={"settings": settings.model_dump(mode="json")},
        key=key,
    )


RUN_FILE = "run.json"


class TrainingCallback:
    """Callback of a training's progress, which may also stop it. This base class does nothing."""

    def should_stop(self) -> bool:
        return False

    def on_encoded(self, counts: EncodingCounts, limit: int | None) -> None:
        """Called after each encoded batch of the data set."""

    def on_start(self, trainer: RoundTrainer) -> None:
        """Called before the first step, or the first one of a training that goes on."""

    def on_checkpoint(self, step: int) -> None:
        """Called after a checkpoint was written."""

    def on_step(self, step: int, steps: int, result: StepResult) -> None:
        """Called after each training step."""


@dataclass(slots=True)
class TrainingRun:
    """A training run: its folder and its state.

    `version` is the number that its adapter gets, `settings` are those with betas, `end` is how it ended.
    """

    folder: Path
    output: Path
    key: str
    version: int
    settings: dict[str, Any] | None = None
    end: dict[str, Any] | None = None

    @classmethod
    def open(cls, work: Path, output: Path, facts: Any) -> Self:
        """Open the run of these inputs, or begin one. An adapter's number is assigned when its training begins."""
        key = plan_key(facts)
        folder = _run_folder(work, key)
        if (folder / RUN_FILE).is_file():
            stored = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
            end = stored["end"]
            still_there = end is not None and (output / end["folder"]).is_dir()
            return cls(folder, output, key, stored["version"], stored["settings"], end if still_there else None)
        others = [json.loads(path.read_text(encoding="utf-8"))["version"] for path in work.glob(f"runs/*/{RUN_FILE}")]
        run = cls(folder, output, key, max(others, default=0) + 1)
        run.save()
        return run

    @classmethod
    def from_dict(cls, work: Path, output: Path, facts: Mapping[str, Any]) -> Self:
        """The run that the main process has opened, from its `to_dict`."""
        return cls(_run_folder(work, facts["key"]), output, **facts)

    def to_dict(self) -> dict[str, Any]:
        """Serialize all but the folders as JSON values."""
        return {"key": self.key, "version": self.version, "settings": self.settings, "end": self.end}

    def save(self) -> None:
        facts = {name: value for name, value in self.to_dict().items() if name != "key"}
        write_atomically(self.folder / RUN_FILE, json.dumps(facts, indent=2).encode())


def run_steps(
    run: TrainingRun,
    table: PairTable,
    files: Files,
    denoiser: Denoiser,
    settings: RoundSettings,
    manifest: Mapping[str, Any],
    watcher: TrainingCallback,
    *,
    references: Path,
    clock: Callable[[], float] = time.monotonic,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Iterator[StepDone]:
    """Train from the run's checkpoint, or its beginning, to its end; yield each step.

    When told to stop before that, `run.end` stays None.

    `manifest` is what the adapter's folder records beside the training itself; its `base_model` must hold the base
    model's fingerprint. `references` is where reference errors of these very pairs are kept: they go by the pairs'
    indices, which mean something else in another table. Of several processes in `group` the main one's `watcher` is
    asked, and it alone writes. Raises RoundFailedError, StorageFullError, PeerLostError.
    """
    if run.settings is None:
        run.settings = group.broadcast_with_heartbeat(
            lambda: _calibrate(table, files, denoiser, settings).model_dump(mode="json")
        )
        group.broadcast(run.save)
    plan = make_plan(
        table,
        files,
        denoiser,
        RoundSettings.model_validate(run.settings),
        base_fingerprint=manifest["base_model"]["fingerprint"],
        key=run.key,
    )
    resume_from = Checkpoint.load(run.folder, plan=plan.key)
    if resume_from is not None:
        _log.info("going on at step %d of %d", resume_from.step, plan.settings.num_steps)
    trainer = RoundTrainer(
        plan, denoiser, parent=None, reference_folder=references, resume_from=resume_from, group=group
    )

    def save(checkpoint: Checkpoint) -> None:
        checkpoint.save(run.folder, plan=plan.key)
        watcher.on_checkpoint(checkpoint.step)

    with closing(trainer):
        watcher.on_start(trainer)
        yield from steps(
            trainer,
            save=save,
            checkpoint_seconds=plan.settings.slice_seconds,
            should_stop=watcher.should_stop,
            clock=clock,
        )
        if not trainer.is_done:
            return
        run.end = group.broadcast(lambda: _publish(run, trainer, plan, manifest, group))
        group.broadcast(trainer.save_reference)
    group.broadcast(lambda: _close(run))


def _close(run: TrainingRun) -> None:
    run.save()
    (run.folder / FILE_NAME).unlink(missing_ok=True)


def _publish(
    run: TrainingRun, trainer: RoundTrainer, plan: RoundPlan, manifest: Mapping[str, Any], group: ProcessGroup
) -> dict[str, Any]:
    """Write the adapter; return its folder, metrics and warning. Killed in between, a retry finds the same folder."""
    best, live, violation = trainer.result(), trainer.live_evaluation, trainer.violation
    if violation is not None and trainer.best is None:
        raise RoundFailedError(f"{violation}; no evaluation before that had found the adapter within the limits")
    metrics = compute_metrics(plan, best, live, trainer.seconds, items="pairs", parent="base")
    verdict = judge_round(plan, best, live)
    metrics |= verdict.to_metrics() if verdict else {}
    warning = "; ".join(str(reason) for reason in (violation, reason_to_refuse(verdict)) if reason) or None
    provenance = {**manifest, "processes": group.world_size}
    proven = warning is None and is_proven(plan)
    remove_staging_folders(run.output)
    staged = stage_adapter(run.output, run.version, plan, best, provenance, proven=proven, metrics=metrics)
    return {"folder": staged.folder_name, "metrics": metrics, "warning": warning}


def _calibrate(table: PairTable, files: Files, denoiser: Denoiser, settings: RoundSettings) -> RoundSettings:
    """Calibrate the betas that are not set, on the first pairs."""
    dataset = calibration_pairs(table, files, alpha=settings.alpha)
    errors = PairErrors.from_settings(denoiser, dataset, ReferenceCache(), settings)
    return calibrate_betas(settings, errors)


def _run_folder(work: Path, key: str) -> Path:
    return work / "runs" / key[:16]

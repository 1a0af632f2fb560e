"""A training on an encoded data set: its plan, and its run from checkpoint to checkpoint."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dmpo_app.diffusion.adapter_files import remove_leftovers, write_adapter
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.domain.lineage import BASE_VERSION
from dmpo_app.errors import RoundFailed
from dmpo_app.io import write_atomically
from dmpo_app.objective import soft_target
from dmpo_app.settings import RoundSettings
from dmpo_app.store.files import Files
from dmpo_app.training.data.dataset import PairDataset, PairTensors, is_held_out
from dmpo_app.training.data.encoded_pairs import Counts, PairTable
from dmpo_app.training.data.slots import keyed_seed
from dmpo_app.training.distributed.process_group import ALONE, Group
from dmpo_app.training.loop.checkpoint import FILE_NAME, Checkpoint
from dmpo_app.training.loop.step import StepResult
from dmpo_app.training.loop.trainer import RoundTrainer
from dmpo_app.training.monitoring.evaluation import MIN_HELD_OUT_VOTES
from dmpo_app.training.reference.calibration import MAX_PAIRS, with_betas
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.reference_cache import ReferenceCache
from dmpo_app.training.rounds.publishing import reason_to_refuse
from dmpo_app.training.rounds.round_plan import RoundPlan

MIN_STEPS, MAX_STEPS = 80, 2000
"""Between which one pass over the data lies where nothing else is asked for. 80 is a round's usual number; 2,000 that
of the third-party scripts that train on Pick-a-Pic, whose batches are larger."""
USUAL_HELD_OUT = 512
"""Pairs to judge by where no share is set: every look at them costs as much as some steps."""


def with_usual_values(settings: RoundSettings, num_pairs: int) -> RoundSettings:
    """The settings with what nobody has set fitted to the number of pairs; what is set stays.

    Held out is the usual share but not more than about 512 pairs; steps make one pass over the others, 80 at least and
    2,000 at most; twenty times on the way the held-out pairs are looked at, not more often than every 20 steps.
    """
    given = settings.model_fields_set
    updates: dict[str, Any] = {}
    share = settings.held_out_share
    if "held_out_share" not in given:
        share = updates["held_out_share"] = min(share, USUAL_HELD_OUT / max(num_pairs, 1))
    steps = settings.num_steps
    if "num_steps" not in given:
        one_pass = -(-round(num_pairs * (1 - share)) // settings.batch_pairs)
        steps = updates["num_steps"] = min(max(one_pass, MIN_STEPS), MAX_STEPS)
    if "evaluate_every" not in given:
        updates["evaluate_every"] = max(settings.evaluate_every, steps // 20)
    return settings.model_copy(update=updates)


def split_pairs(prompts: Sequence[str], settings: RoundSettings) -> tuple[list[int], list[int]]:
    """Numbers of the pairs to train on and of those that judge, by prompt; all train when all would judge."""
    sides = [is_held_out(prompt, share=settings.held_out_share, seed=settings.seed) for prompt in prompts]
    train = [number for number, held_out in enumerate(sides) if not held_out]
    if not train:
        return list(range(len(prompts))), []
    return train, [number for number, held_out in enumerate(sides) if held_out]


def dataset_of(table: PairTable, numbers: Sequence[int], files: Files, *, alpha: float) -> PairDataset:
    """Some pairs of the table; a pair's id is its number, whatever it is chosen with. No tensor is read."""
    packed = table.files.chosen(numbers)
    votes = torch.tensor([table.num_votes[number] for number in numbers])
    wins = torch.tensor([table.wins_a[number] for number in numbers]) * votes
    return PairDataset(
        pair_ids=tuple(numbers),
        prompts=tuple(table.prompts[number] for number in numbers),
        files=packed,
        targets=soft_target(wins, votes, alpha=alpha),
        weights=votes,
        tensors=PairTensors(files),
    )


def calibration_pairs(table: PairTable, files: Files, *, alpha: float) -> PairDataset:
    """The pairs that beta is found from: the first ones."""
    return dataset_of(table, range(min(MAX_PAIRS, len(table.prompts))), files, alpha=alpha)


def plan_key(facts: Any) -> str:
    """A sha256 (hex) over JSON values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def make_plan(
    table: PairTable,
    files: Files,
    denoiser: Denoiser,
    settings: RoundSettings,
    *,
    base_fingerprint: str,
    key: str,
) -> RoundPlan:
    """The plan of a training with settings whose betas are known."""
    train, held_out = split_pairs(table.prompts, settings)
    return RoundPlan(
        round_id=1,
        base_fingerprint=base_fingerprint,
        seed=keyed_seed(settings.seed, "offline") % 2**31,
        parent_version=BASE_VERSION,
        settings=settings,
        spec=LoraSpec.of(settings, denoiser.family),
        train=dataset_of(table, train, files, alpha=settings.alpha),
        held_out=dataset_of(table, held_out, files, alpha=settings.alpha) if held_out else None,
        train_vote_ids=tuple(train),
        held_out_vote_ids=tuple(held_out),
        config={"settings": settings.model_dump(mode="json")},
        key=key,
    )


RUN_FILE = "run.json"
_log = logging.getLogger(__name__)


class TrainingWatcher:
    """Is told how far things are, and may ask to stop. This one is silent and patient."""

    def should_stop(self) -> bool:
        return False

    def encoded(self, counts: Counts, limit: int | None) -> None:
        """After each batch of the pass over the data."""

    def trained(self, step: int, steps: int, result: StepResult) -> None:
        """After each step."""


@dataclass(slots=True)
class Run:
    """The folder of a training, and what is known of it so far.

    `version` is the number that its adapter gets, `settings` are those with betas, `end` is how it ended.
    """

    folder: Path
    output: Path
    key: str
    version: int
    settings: dict[str, Any] | None = None
    end: dict[str, Any] | None = None

    @classmethod
    def open(cls, work: Path, output: Path, facts: Any) -> Run:
        """The run of that key, found or begun. An adapter's number is given when its training begins."""
        key = plan_key(facts)
        folder = _folder_of(work, key)
        if (folder / RUN_FILE).is_file():
            found = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
            end = found["end"]
            still_there = end is not None and (output / end["folder"]).is_dir()
            return cls(folder, output, key, found["version"], found["settings"], end if still_there else None)
        others = [json.loads(path.read_text(encoding="utf-8"))["version"] for path in work.glob(f"runs/*/{RUN_FILE}")]
        run = cls(folder, output, key, max(others, default=0) + 1)
        run.save()
        return run

    @classmethod
    def from_facts(cls, work: Path, output: Path, facts: Mapping[str, Any]) -> Run:
        """The run that another process has opened and told the `facts` of."""
        return cls(_folder_of(work, facts["key"]), output, **facts)

    def facts(self) -> dict[str, Any]:
        """All but the folders, as JSON can hold it."""
        return {"key": self.key, "version": self.version, "settings": self.settings, "end": self.end}

    def save(self) -> None:
        facts = {name: value for name, value in self.facts().items() if name != "key"}
        write_atomically(self.folder / RUN_FILE, json.dumps(facts, indent=2).encode())


def train_run(
    run: Run,
    table: PairTable,
    files: Files,
    denoiser: Denoiser,
    settings: RoundSettings,
    manifest: Mapping[str, Any],
    watcher: TrainingWatcher,
    *,
    references: Path,
    clock: Callable[[], float] = time.monotonic,
    group: Group = ALONE,
) -> bool:
    """Train from the run's checkpoint, or its beginning, to its end; False when told to stop before that.

    `manifest` is what the adapter's folder records beside the training itself; its `base_model` must hold the base
    model's fingerprint. `references` is where reference errors of these very pairs are kept: they go by the pairs'
    numbers, which mean something else in another table. Of several processes in `group` the leading one's watcher is
    asked, and it alone writes. Raises RoundFailed, StorageFull, PeerLost.
    """
    if run.settings is None:
        run.settings = group.led_at_length(
            lambda: _calibrated(table, files, denoiser, settings).model_dump(mode="json")
        )
        group.led(run.save)
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
    try:
        if not _run_slices(trainer, plan, run.folder, watcher, clock, group):
            return False
        run.end = group.led(lambda: _publish(run, trainer, plan, manifest, group))
        group.led(trainer.save_reference)
    finally:
        trainer.close()
    group.led(lambda: _close(run))
    return True


def _run_slices(
    trainer: RoundTrainer,
    plan: RoundPlan,
    folder: Path,
    watcher: TrainingWatcher,
    clock: Callable[[], float],
    group: Group,
) -> bool:
    """To the last step or a limit, with a checkpoint at the end of each slice; False when told to stop, checkpointed
    too."""
    steps, saved = plan.settings.num_steps, clock()
    while not trainer.is_done:
        stopping, is_over = group.led(lambda: [watcher.should_stop(), clock() - saved >= plan.settings.slice_seconds])  # noqa: B023
        if stopping or is_over:
            trainer.seconds += clock() - saved
            checkpoint = trainer.checkpoint()
            group.led(lambda: checkpoint.save(folder, plan=plan.key))  # noqa: B023 - called before the next turn
            saved = clock()
        if stopping:
            return False
        result = trainer.train_step()
        trainer.look_if_due()
        trainer.evaluate_if_due()
        watcher.trained(trainer.step, steps, result)
    trainer.seconds += clock() - saved
    trainer.checkpoint()  # for the comparison of the processes' adapters and the exchange of their references
    return True


def _close(run: Run) -> None:
    run.save()
    (run.folder / FILE_NAME).unlink(missing_ok=True)


def _publish(
    run: Run, trainer: RoundTrainer, plan: RoundPlan, manifest: Mapping[str, Any], group: Group
) -> dict[str, Any]:
    """Write the adapter; what a person wants to know of it. Killed in between, the same adapter is found there."""
    best, live, passed = trainer.result(), trainer.live, trainer.passed
    if passed is not None and trainer.best is None:
        raise RoundFailed(f"{passed}; no look before that had found the adapter within the limits")
    metrics = {
        "step": float(best.step),
        "train_pairs": float(len(plan.train)),
        "held_out_pairs": float(len(plan.held_out_vote_ids)),
        "seconds": round(trainer.seconds, 2),
    }
    if best.evaluation is not None and live is not None:
        metrics["held_out_loss"], metrics["base_held_out_loss"] = best.evaluation.loss, live.loss
        metrics["held_out_accuracy"] = best.evaluation.agreement.accuracy
        metrics["held_out_margin"] = best.evaluation.agreement.margin
    warning = "; ".join(str(reason) for reason in (passed, reason_to_refuse(plan, best, live)) if reason) or None
    recorded = {
        **manifest,
        "seed": plan.seed,
        "step": best.step,
        "config": plan.config,
        "proven": warning is None and len(plan.held_out_vote_ids) >= MIN_HELD_OUT_VOTES,
        "metrics": metrics,
        "num_threads": torch.get_num_threads(),
        "processes": group.size,
    }
    remove_leftovers(run.output)
    staged = write_adapter(run.output, run.version, best.tensors, plan.spec, recorded)
    return {"folder": staged.folder_name, "metrics": metrics, "warning": warning}


def _calibrated(table: PairTable, files: Files, denoiser: Denoiser, settings: RoundSettings) -> RoundSettings:
    """The settings with the betas that are not set, found from the first pairs."""
    dataset = calibration_pairs(table, files, alpha=settings.alpha)
    errors = PairErrors.of(denoiser, dataset, ReferenceCache(), settings)
    return with_betas(settings, errors)


def _folder_of(work: Path, key: str) -> Path:
    return work / "runs" / key[:16]

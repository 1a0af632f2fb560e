"""One round: its slices from checkpoint to checkpoint, from its settings to its publication, under a held lease.

    start_round -> RoundRunner -> run_slice, run_slice, ... -> FINISHED, its adapter published or refused

A slice ends when its time is up, when the trainer is told to stop, or with the round. Whoever picks the round up later,
in this process or another, continues from the last checkpoint and arrives at the same weights.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import torch

from dmpo_app.diffusion.adapter_files import StagedAdapter, write_adapter
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.domain.judging import Evidence, NewVerdict, Verdict
from dmpo_app.domain.lineage import AdapterRef, BaseModelRef, NewAdapter, RoundState
from dmpo_app.domain.verdict import MIN_HELD_OUT_VOTES, GateVerdict
from dmpo_app.domain.vote import Question
from dmpo_app.errors import LeaseLostError, RoundFailedError
from dmpo_app.io.liveness import phase
from dmpo_app.labeling.quality.wrong_votes import PRIOR_WRONG_SHARE, estimate_wrong_share
from dmpo_app.store import Store
from dmpo_app.training.data.dataset import filter_votes
from dmpo_app.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from dmpo_app.training.loop.checkpoint import BestAdapter, Checkpoint
from dmpo_app.training.loop.steps import steps
from dmpo_app.training.loop.trainer import RoundTrainer
from dmpo_app.training.monitoring.early_stopping import LimitViolation
from dmpo_app.training.monitoring.evaluation import Evaluation
from dmpo_app.training.monitoring.gate import judge
from dmpo_app.training.monitoring.latent_preview import read_preview
from dmpo_app.training.reference.reference_cache import reference_folder
from dmpo_app.training.rounds import round_progress
from dmpo_app.training.rounds.round_plan import RoundPlan, load_plan, parent_files, read_parent
from dmpo_app.training.rounds.withdrawals import describe_replacement, find_replaced, go_back

_log = logging.getLogger(__name__)

_MAX_PLAN_READS = 5


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
    `group` each has a runner; only the main process's writes, asks and is asked. `is_held`: as in `publish_or_refuse`.
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
        track: round_progress.MetricsCallback = round_progress.ignore_metrics,
        group: ProcessGroup = SINGLE_PROCESS,
        is_held: bool = False,
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
        self._is_held = is_held
        self._was_stopped = False
        self._plan = self._load_plan(state)
        self._trainer = RoundTrainer(
            self._plan,
            denoiser,
            parent=read_parent(parent_files(store, base, self._plan), self._plan, denoiser),
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
        report = round_progress.ProgressRecorder(
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
        with phase("publishing"):
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
            is_held=self._is_held,
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


def round_folder(home: Path, round_id: int) -> Path:
    """The folder of a round's checkpoint."""
    return home / "rounds" / str(round_id)


def remove_checkpoint(home: Path, round_id: int) -> None:
    """Delete a finished round's working files. Those that cannot be removed only take space."""
    shutil.rmtree(round_folder(home, round_id), ignore_errors=True)


def publish_or_refuse(
    store: Store,
    base: BaseModelRef,
    plan: RoundPlan,
    best: BestAdapter | None,
    live: Evaluation | None,
    violation: LimitViolation | None,
    *,
    seconds: float,
    token: int,
    is_held: bool = False,
) -> str:
    """Publish or refuse the round's best adapter; return the outcome in words.

    `is_held`: it is published and held back, unless the held-out votes prove it better than the live version.

    `best` is None when a limit was exceeded before any evaluation found an adapter within them. Raises LeaseLostError,
    StorageFullError, AdapterCorruptError; then nothing was decided.
    """
    verdict = None
    if best is None:
        reason: str | None = f"{violation}; no evaluation before that had found it within the limits"
    else:
        verdict = judge_round(plan, best, live, wrong_share=_wrong_share(store, base, plan))
        reason = reason_to_refuse(verdict)
        reason = f"{violation}; before that, {reason}" if violation and reason else reason
    replaced = find_replaced(store, base, plan.config)
    is_forgiven = replaced is not None and not (verdict is not None and verdict.is_clearly_worse)
    if best is None or (reason is not None and not is_forgiven):
        store.rounds.refuse(plan.round_id, reason or "", token=token)
        if replaced is not None:
            go_back(store, base, replaced, reason="the version without them is no better")
        return f"refused: {reason}"
    adapter = publish(
        store,
        base,
        plan,
        best,
        live,
        violation,
        verdict,
        seconds=seconds,
        token=token,
        is_held=is_held and replaced is None,
        objection=reason,
    )
    return f"published version {adapter.version}{', held back' if adapter.is_held else ''}, from step {best.step}"


def judge_round(
    plan: RoundPlan, best: BestAdapter, live: Evaluation | None, *, wrong_share: float = PRIOR_WRONG_SHARE
) -> GateVerdict | None:
    """Judge the round's best adapter against the live version; None without held-out votes or without that version."""
    if plan.held_out is None or best.evaluation is None or live is None:
        return None
    held_out = plan.held_out
    return judge(
        best.evaluation.margins,
        live.margins,
        vote_shares=held_out.vote_shares.tolist(),
        weights=held_out.weights.tolist(),
        prompts=held_out.prompts,
        num_votes=len(plan.held_out_vote_ids),
        live_version=plan.parent_version,
        wrong_share=wrong_share,
    )


def reason_to_refuse(verdict: GateVerdict | None) -> str | None:
    """The reason not to publish an adapter in place of the live one, in words; None when it may be."""
    if verdict is None or verdict.outcome is not Verdict.WORSE:
        return None
    return f"worse than {verdict.live_name} by the held-out votes: {verdict.counts}"


def _wrong_share(store: Store, base: BaseModelRef, plan: RoundPlan) -> float:
    """Estimate the share of wrong votes from all votes of the round."""
    question = Question(plan.config.get("question", Question.OVERALL))
    vote_ids = (*plan.train_vote_ids, *plan.held_out_vote_ids)
    return estimate_wrong_share(filter_votes(store.votes.training_votes(base, question=question), vote_ids))


def publish(
    store: Store,
    base: BaseModelRef,
    plan: RoundPlan,
    best: BestAdapter,
    live: Evaluation | None,
    violation: LimitViolation | None,
    verdict: GateVerdict | None,
    *,
    seconds: float,
    token: int,
    is_held: bool = False,
    objection: str | None = None,
) -> AdapterRef:
    """Write the adapter's folder, then record it and make it live in one transaction.

    `is_held`: it is held back instead, unless `verdict` says that it is better than the live version.
    `verdict` is the gate's, which goes into the adapter's metrics. `violation` is the limit that ended the round early;
    the round's reason and the adapter's metrics say so. `objection` is what the gate had against it, where it takes the
    place of a version whose votes were taken back.
    Killed in between and run again, the same tensors find their folder there. Raises LeaseLostError, StorageFullError.
    """
    metrics = compute_metrics(plan, best, live, seconds) | _violation_metrics(violation)
    metrics |= verdict.to_metrics() if verdict else {}
    reason = None if violation is None else f"{violation}; published from step {best.step}"
    provenance = {
        "base_model": {"source": base.source, "family": base.family, "fingerprint": base.fingerprint},
        "parent": plan.parent_version,
        "round": plan.round_id,
        "train_votes": list(plan.train_vote_ids),
        "held_out_votes": list(plan.held_out_vote_ids),
        "stopped": reason,
    }
    proven, version = is_proven(plan), store.adapters.next_version(base)
    staged = stage_adapter(store.adapters.root(base), version, plan, best, provenance, proven=proven, metrics=metrics)
    adapter = NewAdapter(
        parent=plan.parent_version,
        folder_name=staged.folder_name,
        sha256=staged.sha256,
        proven=proven,
        metrics=metrics,
        vote_ids=plan.train_vote_ids,
    )
    remarks = (describe_replacement(plan.config), objection, None if objection else reason)
    reason = "; ".join(remark for remark in remarks if remark) or None
    proof = None if verdict is None else _as_proof(verdict, version)
    return store.rounds.publish(plan.round_id, adapter, token=token, reason=reason, is_held=is_held, proof=proof)


def _as_proof(verdict: GateVerdict, version: int) -> NewVerdict:
    """The gate's verdict as one that can make a version live which would be held back."""
    numbers = {**verdict.to_metrics(), "sentence": verdict.sentence}
    return NewVerdict(version, verdict.live_version, verdict.outcome, Evidence.HELD_OUT, numbers)


def is_proven(plan: RoundPlan) -> bool:
    """True when there are enough held-out votes to tell a good adapter from a bad one."""
    return len(plan.held_out_vote_ids) >= MIN_HELD_OUT_VOTES


def compute_metrics(
    plan: RoundPlan,
    best: BestAdapter,
    live: Evaluation | None,
    seconds: float,
    *,
    items: Literal["votes", "pairs"] = "votes",
    parent: Literal["live", "base"] = "live",
) -> dict[str, float]:
    """Compute the metrics of an adapter, beside those of the version before it, which a data set calls the base."""
    metrics = {
        "step": float(best.step),
        f"train_{items}": float(len(plan.train_vote_ids)),
        f"held_out_{items}": float(len(plan.held_out_vote_ids)),
        "seconds": round(seconds, 2),
    }
    if best.evaluation is not None:
        metrics["held_out_probability"] = best.evaluation.voted_probability
        metrics["held_out_loss"] = best.evaluation.loss
        metrics["held_out_margin"] = best.evaluation.agreement.margin
        metrics["held_out_accuracy"] = best.evaluation.agreement.accuracy
    if live is not None:
        metrics[f"{parent}_held_out_probability"] = live.voted_probability
        metrics[f"{parent}_held_out_loss"] = live.loss
        metrics[f"{parent}_held_out_accuracy"] = live.agreement.accuracy
    return metrics


def _violation_metrics(violation: LimitViolation | None) -> dict[str, float]:
    """The metrics of an early stop; metrics are numbers, so the limit's name is part of theirs."""
    if violation is None:
        return {}
    metrics = {"stopped_at_step": float(violation.step), f"limit_{violation.name}": violation.bound}
    return metrics if violation.value is None else {**metrics, f"stopped_{violation.name}": violation.value}


def stage_adapter(
    root: Path,
    version: int,
    plan: RoundPlan,
    best: BestAdapter,
    provenance: Mapping[str, Any],
    *,
    proven: bool,
    metrics: Mapping[str, float],
) -> StagedAdapter:
    """Write the adapter's folder, with a manifest of where it comes from (`provenance`) and how it was trained.

    Killed in between and run again, the same tensors find their folder there. Raises StorageFullError.
    """
    manifest = {
        **provenance,
        "seed": plan.seed,
        "step": best.step,
        "config": plan.config,
        "proven": proven,
        "metrics": metrics,
        "num_threads": torch.get_num_threads(),
    }
    return write_adapter(root, version, best.tensors, plan.spec, manifest)


class TrainerLease:
    """Lease that is acquired, renewed and released. A trainer that restarts under the same `owner` need not wait."""

    def __init__(
        self, store: Store, base: BaseModelRef, owner: str, *, seconds: float, now: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._base = base
        self._owner = owner
        self._seconds = seconds
        self._now = now
        self._token: int | None = None
        self._renewed_at = now()

    @property
    def is_held(self) -> bool:
        """True while the lease was acquired and not known to be lost."""
        return self._token is not None

    @property
    def token(self) -> int:
        """The fencing token of the trainer's writes. Raises LeaseLostError without a lease."""
        if self._token is None:
            raise LeaseLostError("this trainer holds no lease")
        return self._token

    def acquire(self) -> bool:
        """Acquire the lease; False while another trainer has it."""
        self._token = self._store.lease.acquire(self._base, self._owner, lease_seconds=self._seconds)
        self._renewed_at = self._now()
        return self.is_held

    def renew(self) -> None:
        """Renew the lease when a quarter of it is over; to be called often. Raises LeaseLostError."""
        if self._now() - self._renewed_at >= timedelta(seconds=self._seconds / 4):
            self._store.lease.renew(self._base, self.token)
            self._renewed_at = self._now()

    def mark_lost(self) -> None:
        """Record that another trainer has the lease now."""
        self._token = None

    def release(self) -> None:
        """Release the lease, so that the next trainer need not wait. Without a lease nothing happens."""
        if self._token is None:
            return
        try:
            self._store.lease.release(self._base, self._token)
        except LeaseLostError:
            _log.info("the lease had gone to another trainer already")
        self._token = None

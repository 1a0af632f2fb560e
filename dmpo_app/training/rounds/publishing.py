"""Publishing or refusing the adapter at the end of a round."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from dmpo_app.diffusion.adapter_files import StagedAdapter, write_adapter
from dmpo_app.domain.image import AdapterRef, BaseModelRef, NewAdapter
from dmpo_app.store import Store
from dmpo_app.training.loop.checkpoint import BestAdapter
from dmpo_app.training.monitoring.early_stopping import LimitViolation
from dmpo_app.training.monitoring.evaluation import MIN_HELD_OUT_VOTES, Evaluation, compare
from dmpo_app.training.rounds.round_plan import RoundPlan


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
) -> str:
    """Publish or refuse the round's best adapter; return the outcome in words.

    `best` is None when a limit was exceeded before any evaluation found an adapter within them. Raises LeaseLostError,
    StorageFullError, AdapterCorruptError; then nothing was decided.
    """
    if best is None:
        reason: str | None = f"{violation}; no evaluation before that had found it within the limits"
    else:
        reason = reason_to_refuse(plan, best, live)
        reason = f"{violation}; before that, {reason}" if violation and reason else reason
    if best is None or reason is not None:
        store.rounds.refuse(plan.round_id, reason or "", token=token)
        return f"refused: {reason}"
    adapter = publish(store, base, plan, best, live, violation, seconds=seconds, token=token)
    return f"published version {adapter.version}, from step {best.step}"


def reason_to_refuse(plan: RoundPlan, best: BestAdapter, live: Evaluation | None) -> str | None:
    """The reason not to publish the round's best adapter in place of the live one; None when it may be.

    Only with enough held-out votes, and only when it is worse on them by more than one standard error over prompts.
    """
    if plan.held_out is None or best.evaluation is None or live is None:
        return None
    comparison = compare(best.evaluation, live, plan.held_out.prompts, plan.held_out.weights.tolist())
    if len(plan.held_out_vote_ids) < MIN_HELD_OUT_VOTES or not comparison.is_worse:
        return None
    return (
        f"on {len(plan.held_out_vote_ids)} held-out votes it does worse than version {plan.parent_version}: its loss "
        f"is higher by {comparison.difference:.3f}, one standard error over prompts is {comparison.standard_error:.3f}"
    )


def publish(
    store: Store,
    base: BaseModelRef,
    plan: RoundPlan,
    best: BestAdapter,
    live: Evaluation | None,
    violation: LimitViolation | None,
    *,
    seconds: float,
    token: int,
) -> AdapterRef:
    """Write the adapter's folder, then record it and make it live in one transaction.

    `violation` is the limit that ended the round early; the round's reason and the adapter's metrics say so.
    Killed in between and run again, the same tensors find their folder there. Raises LeaseLostError, StorageFullError.
    """
    metrics = compute_metrics(plan, best, live, seconds) | _violation_metrics(violation)
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
    return store.rounds.publish(plan.round_id, adapter, token=token, reason=reason)


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
        metrics["held_out_loss"] = best.evaluation.loss
        metrics["held_out_margin"] = best.evaluation.agreement.margin
        metrics["held_out_accuracy"] = best.evaluation.agreement.accuracy
    if live is not None:
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

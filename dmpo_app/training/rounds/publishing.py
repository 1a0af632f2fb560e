"""The end of a round: publish what it made, or refuse it."""

from __future__ import annotations

from typing import Any

import torch

from dmpo_app.diffusion.adapter_files import write_adapter
from dmpo_app.domain.lineage import AdapterRef, BaseModelRef, NewAdapter
from dmpo_app.store import Store
from dmpo_app.training.loop.checkpoint import Best
from dmpo_app.training.monitoring.early_stopping import PassedLimit
from dmpo_app.training.monitoring.evaluation import MIN_HELD_OUT_VOTES, Evaluation, compare
from dmpo_app.training.rounds.round_plan import RoundPlan


def finish(
    store: Store,
    base: BaseModelRef,
    plan: RoundPlan,
    best: Best | None,
    live: Evaluation | None,
    passed: PassedLimit | None,
    *,
    seconds: float,
    token: int,
) -> str:
    """Publish or refuse what a round's steps came to, and say in words which.

    `best` is None when a limit was passed before any look found an adapter within the limits. Raises LeaseLost,
    StorageFull, AdapterCorrupt; then nothing was decided.
    """
    if best is None:
        reason: str | None = f"{passed}; no look before that had found it within the limits"
    else:
        reason = reason_to_refuse(plan, best, live)
        reason = f"{passed}; before that, {reason}" if passed and reason else reason
    if best is None or reason is not None:
        store.rounds.refuse(plan.round_id, reason or "", token=token)
        return f"refused: {reason}"
    adapter = publish(store, base, plan, best, live, passed, seconds=seconds, token=token)
    return f"published version {adapter.version}, from step {best.step}"


def reason_to_refuse(plan: RoundPlan, best: Best, live: Evaluation | None) -> str | None:
    """Why the round's best adapter must not replace the live one; None when it may.

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
    best: Best,
    live: Evaluation | None,
    passed: PassedLimit | None,
    *,
    seconds: float,
    token: int,
) -> AdapterRef:
    """Write the adapter's folder, then record it and make it live in one transaction.

    `passed` is the limit that ended the round early; the round's reason and the adapter's metrics say so.
    Killed in between and run again, the same tensors find their folder there. Raises LeaseLost, StorageFull.
    """
    proven = len(plan.held_out_vote_ids) >= MIN_HELD_OUT_VOTES
    metrics = _metrics(plan, best, live, seconds) | _stopped(passed)
    reason = None if passed is None else f"{passed}; published from step {best.step}"
    staged = write_adapter(
        store.adapters.root(base),
        store.adapters.next_version(base),
        best.tensors,
        plan.spec,
        _manifest(base, plan, best, proven=proven, metrics=metrics, stopped=reason),
    )
    adapter = NewAdapter(
        parent=plan.parent_version,
        folder_name=staged.folder_name,
        sha256=staged.sha256,
        proven=proven,
        metrics=metrics,
        vote_ids=plan.train_vote_ids,
    )
    return store.rounds.publish(plan.round_id, adapter, token=token, reason=reason)


def _metrics(plan: RoundPlan, best: Best, live: Evaluation | None, seconds: float) -> dict[str, float]:
    metrics = {
        "step": float(best.step),
        "train_votes": float(len(plan.train_vote_ids)),
        "held_out_votes": float(len(plan.held_out_vote_ids)),
        "seconds": round(seconds, 2),
    }
    if best.evaluation is not None:
        metrics["held_out_loss"] = best.evaluation.loss
        metrics["held_out_margin"] = best.evaluation.agreement.margin
        metrics["held_out_accuracy"] = best.evaluation.agreement.accuracy
    if live is not None:
        metrics["live_held_out_loss"] = live.loss
        metrics["live_held_out_accuracy"] = live.agreement.accuracy
    return metrics


def _stopped(passed: PassedLimit | None) -> dict[str, float]:
    """Metrics are numbers: the limit's name is part of theirs."""
    if passed is None:
        return {}
    stopped = {"stopped_at_step": float(passed.step), f"limit_{passed.name}": passed.bound}
    return stopped if passed.value is None else {**stopped, f"stopped_{passed.name}": passed.value}


def _manifest(
    base: BaseModelRef, plan: RoundPlan, best: Best, *, proven: bool, metrics: dict[str, float], stopped: str | None
) -> dict[str, Any]:
    return {
        "base_model": {"source": base.source, "family": base.family, "fingerprint": base.fingerprint},
        "parent": plan.parent_version,
        "round": plan.round_id,
        "seed": plan.seed,
        "step": best.step,
        "config": plan.config,
        "train_votes": list(plan.train_vote_ids),
        "held_out_votes": list(plan.held_out_vote_ids),
        "proven": proven,
        "metrics": metrics,
        "stopped": stopped,
        "num_threads": torch.get_num_threads(),
    }

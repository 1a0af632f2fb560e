"""One training step: a batch of examples, their loss, one update of the adapter.

Shapes:  B examples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from dmpo_app.errors import RoundFailedError
from dmpo_app.objective import Needs, Objective, PairTerms, guarded, ranking_dmpo_from_margins
from dmpo_app.settings import RoundSettings
from dmpo_app.training.data.training_examples import Example, RankedExamples
from dmpo_app.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from dmpo_app.training.monitoring import early_stopping
from dmpo_app.training.reference.denoising_errors import PairErrors


@dataclass(frozen=True, slots=True)
class PreferenceLoss:
    """The loss that a step minimises: an objective with its options and, if set, the winner-preserving guard's mu.

    `margin_beta` is the scale of the margins that are reported, whatever the objective does with its own `beta`.
    """

    objective: Objective
    beta: float
    margin_beta: float
    options: Mapping[str, float]
    winner_guard: float | None = None

    @property
    def needs(self) -> Needs:
        return self.objective.needs

    def __call__(self, terms: PairTerms, rankings: Sequence[RankedExamples] = ()) -> Tensor:
        """Compute the loss of each pair, (B,). That of a ranking stands at its first link, 0 at the others."""
        guarded_terms = terms if self.winner_guard is None else guarded(terms, mu=self.winner_guard)
        losses = self.objective.loss(guarded_terms, beta=self.beta, **{**self.objective.options, **self.options})
        for ranked_examples in rankings:
            links_RL, targets_RK = (
                ranked_examples.links_RL.to(losses.device),
                ranked_examples.targets_RK.to(losses.device),
            )
            ranking_losses = ranking_dmpo_from_margins(guarded_terms.margin(self.beta)[links_RL], targets_RK)
            losses = losses.index_fill(0, links_RL.flatten(), 0.0).index_put((links_RL[:, 0],), ranking_losses)
        return losses


def train_step(
    errors: PairErrors,
    examples: Sequence[Example],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    loss_fn: PreferenceLoss,
    *,
    max_grad_norm: float,
    micro_pairs: int,
    group: ProcessGroup = SINGLE_PROCESS,
) -> early_stopping.StepResult:
    """Update the adapter once on the vote-weighted mean of the loss over the examples.

    The batch goes through the denoiser in pieces of `micro_pairs` examples, whole blocks where there are rankings, each
    process of the group computing its shard. Raises RoundFailedError, before anything is updated, when loss or gradient
    is not finite.
    """
    example_weights = _example_weights(examples, errors)
    positions = group.shard(len(examples), block=errors.dataset.rankings.block)
    results = group.all_gather(lambda: _backward(errors, examples, example_weights, positions, loss_fn, micro_pairs))
    total, agreement_sum, health_sum = 0.0, early_stopping.VoteAgreement(), early_stopping.PairHealth()
    for loss, agreement_fields, health_fields in results:
        total += loss
        agreement_sum += early_stopping.VoteAgreement(*agreement_fields)
        health_sum += early_stopping.PairHealth(*health_fields)
    group.sum_gradients(parameters.values())
    norm = float(clip_grad_norm_(parameters.values(), max_grad_norm))
    if not (math.isfinite(total) and math.isfinite(norm)):
        optimizer.zero_grad(set_to_none=True)
        raise RoundFailedError(
            f"training diverged: the loss is {total} and its gradient's norm {norm}; "
            "try a smaller learning rate (DMPO_ROUND__LEARNING_RATE) or beta (DMPO_ROUND__BETA)"
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return early_stopping.StepResult(total, agreement_sum, health_sum, norm)


def learning_rate_factor(step: int, settings: RoundSettings) -> float:
    """The factor of the learning rate in step `step`, counted from 0; 0 < factor <= 1.

    It grows in equal parts over the first `warmup_steps`; then it stays (constant), or falls to near 0 at the round's
    last step, in a straight line or along half a cosine.
    """
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.lr_schedule == "constant":
        return 1.0
    progress = (step - settings.warmup_steps) / max(1, settings.num_steps - settings.warmup_steps)
    return 1 - progress if settings.lr_schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of the following steps."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def _example_weights(examples: Sequence[Example], errors: PairErrors) -> Tensor:
    """The weights of the examples, (B,), from the votes behind each; they add up to 1."""
    votes = errors.dataset.weights[[example.pair for example in examples]]
    votes[[position for position, example in enumerate(examples) if example.is_padding]] = 0.0
    return (votes / votes.sum()).to(errors.device)


def _backward(
    errors: PairErrors,
    examples: Sequence[Example],
    example_weights: Tensor,
    positions: range,
    loss_fn: PreferenceLoss,
    micro_pairs: int,
) -> tuple[float, tuple[Any, ...], tuple[Any, ...]]:
    """Accumulate the gradient of one process's shard; return its loss and the fields of its agreement and PairHealth.

    Positions beyond the batch are padded with examples from its start that weigh nothing, so that all pieces have one
    shape in all processes.
    """
    count, total, agreement_sum, health_sum = (
        len(examples),
        0.0,
        early_stopping.VoteAgreement(),
        early_stopping.PairHealth(),
    )
    for start in range(positions.start, positions.stop, micro_pairs):
        batch_positions = range(start, min(start + micro_pairs, positions.stop))
        local_batch = [examples[position % count] for position in batch_positions]
        batch_terms = errors.terms(local_batch, needs=loss_fn.needs, with_residuals=loss_fn.winner_guard is not None)
        num_real = min(max(count - start, 0), len(local_batch))
        loss_weights = torch.cat(
            [example_weights[start : start + num_real], example_weights.new_zeros(len(local_batch) - num_real)]
        )
        loss = (loss_fn(batch_terms, errors.dataset.rankings.rankings_in(local_batch)) * loss_weights).sum()
        torch.autograd.backward(loss)
        total += loss.item()
        real_terms = batch_terms.select(
            [position for position in range(num_real) if not local_batch[position].is_padding]
        )
        margins = real_terms.margin(loss_fn.margin_beta).detach()
        agreement_sum += early_stopping.compute_agreement(margins, real_terms.target)
        health_sum += early_stopping.pair_health(real_terms, margins)
    return total, astuple(agreement_sum), astuple(health_sum)

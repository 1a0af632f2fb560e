"""Evaluation of an adapter on held-out votes, and its comparison to the live version.

Shapes:  N held-out pairs;  K slots each is evaluated in.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dmpo_app.objective import dmpo
from dmpo_app.training.data.training_examples import Example, evaluation_slots
from dmpo_app.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from dmpo_app.training.monitoring.early_stopping import VoteAgreement, compute_agreement
from dmpo_app.training.reference.denoising_errors import PairErrors

MIN_HELD_OUT_VOTES = 30
"""Fewer held-out votes cannot tell a good round from a bad one: it is published and marked as not yet proven."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The evaluation of an adapter on the held-out pairs. `losses` are each pair's mean DMPO loss over its slots."""

    losses: tuple[float, ...]
    loss: float
    agreement: VoteAgreement


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference of an adapter's held-out loss to the live version's; positive is worse."""

    difference: float
    standard_error: float

    @property
    def is_worse(self) -> bool:
        """True when the adapter is worse by more than one standard error."""
        return self.difference > self.standard_error


def evaluate(
    errors: PairErrors, *, beta: float, num_slots: int, micro_pairs: int, group: ProcessGroup = SINGLE_PROCESS
) -> Evaluation:
    """Evaluate loss, margin and accuracy on the same slots of every pair at every call.

    A pair's margin is averaged over its slots. The last batch is filled up with examples from the first, so that all
    have the shape that training has. The processes of the group take turns.
    """
    data = errors.dataset
    slots = evaluation_slots(num_slots)
    examples = [Example(pair, slot) for pair in range(len(data)) for slot in slots]
    num_batches = -(-len(examples) // micro_pairs)
    padded_examples = [examples[i % len(examples)] for i in range(num_batches * micro_pairs)]

    def margins_here() -> list[list[float]]:
        with torch.no_grad():
            return [
                errors.terms(padded_examples[batch * micro_pairs : (batch + 1) * micro_pairs]).margin(beta).tolist()
                for batch in range(group.process_rank, num_batches, group.world_size)
            ]

    gathered = group.all_gather(margins_here)
    margins = [
        margin
        for batch in range(num_batches)
        for margin in gathered[batch % group.world_size][batch // group.world_size]
    ]
    margins_NK = torch.tensor(margins[: len(examples)]).view(len(data), len(slots))
    return _evaluate_margins(margins_NK, errors)


def evaluate_base(errors: PairErrors) -> Evaluation:
    """Evaluate the base model on the held-out pairs: it is its own reference, so every u is 0 without computing."""
    return _evaluate_margins(torch.zeros(len(errors.dataset), 1), errors)


def compare(candidate: Evaluation, live: Evaluation, prompts: Sequence[str], weights: Sequence[float]) -> Comparison:
    """Compare two evaluations: the paired difference of the vote-weighted losses, with its standard error over prompts.

    Votes on one prompt are not independent, so prompts and not votes are what is sampled: the cluster-robust error of a
    weighted mean, sqrt(P / (P - 1) * sum_p (sum_i w_i (d_i - d))^2) / sum_i w_i. A single prompt tells nothing about
    another one; its error is infinite.
    """
    total = sum(weights)
    differences = [new - old for new, old in zip(candidate.losses, live.losses, strict=True)]
    mean = sum(w * d for w, d in zip(weights, differences, strict=True)) / total
    deviations: dict[str, float] = defaultdict(float)
    for prompt, weight, difference in zip(prompts, weights, differences, strict=True):
        deviations[prompt] += weight * (difference - mean)
    count = len(deviations)
    if count < 2:
        return Comparison(mean, math.inf)
    spread = sum(deviation**2 for deviation in deviations.values())
    return Comparison(mean, math.sqrt(count / (count - 1) * spread) / total)


def _evaluate_margins(margins_NK: torch.Tensor, errors: PairErrors) -> Evaluation:
    data = errors.dataset
    losses_N = dmpo(margins_NK, data.targets[:, None].expand_as(margins_NK)).mean(1)
    return Evaluation(
        losses=tuple(losses_N.tolist()),
        loss=float((losses_N * data.weights).sum() / data.weights.sum()),
        agreement=compute_agreement(margins_NK.mean(1), data.targets),
    )

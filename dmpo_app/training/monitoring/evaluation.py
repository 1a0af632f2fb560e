"""Evaluation of an adapter on held-out votes: the yardstick that chooses a round's step, and the training loss.

Shapes:  N held-out pairs;  K slots each is evaluated in.
"""

from dataclasses import dataclass

import torch

from dmpo_app.objective import dmpo
from dmpo_app.training.data.training_examples import Example, evaluation_slots
from dmpo_app.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from dmpo_app.training.monitoring.early_stopping import VoteAgreement, compute_agreement
from dmpo_app.training.reference.denoising_errors import PairErrors


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The evaluation of an adapter on the held-out pairs, means over the slots of each.

    `voted_probability` is the yardstick: the mean probability that the model gives the side people voted for. `loss` is
    the training's and is reported beside it. `margins` are the margins u of the pairs, (N,).
    """

    voted_probability: float
    loss: float
    agreement: VoteAgreement
    margins: tuple[float, ...]


def voted_probability(margins: torch.Tensor, vote_shares: torch.Tensor) -> torch.Tensor:
    """The probability that the model gives the voted side: q p + (1 - q)(1 - p) for each pair, p = sigmoid(u).

        1/2 + (q - 1/2) tanh(u / 2)

    q is the votes' own share for image a; a tie is 1/2 whatever u is. 1 minus this is a loss that is symmetric in the
    sense of Ghosh, Kumar and Sastry 2017 (arXiv 1712.09482): a share w of votes turned round draws every model's mean
    to 1/2 by the same factor 1 - 2 w, and so keeps their order. The DMPO loss does not: it makes much of a sure wrong
    vote, and so prefers small margins to right ones when votes are noisy.

    Args:
        margins, vote_shares: any two shapes that broadcast.
    """
    return 0.5 + (vote_shares - 0.5) * torch.tanh(margins / 2)


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


def _evaluate_margins(margins_NK: torch.Tensor, errors: PairErrors) -> Evaluation:
    data = errors.dataset
    losses_N = dmpo(margins_NK, data.targets[:, None].expand_as(margins_NK)).mean(1)
    voted_N = voted_probability(margins_NK, data.vote_shares[:, None]).mean(1)
    return Evaluation(
        voted_probability=_weighted_mean(voted_N, data.weights),
        loss=_weighted_mean(losses_N, data.weights),
        agreement=compute_agreement(margins_NK.mean(1), data.targets),
        margins=tuple(margins_NK.mean(1).tolist()),
    )


def _weighted_mean(values_N: torch.Tensor, weights_N: torch.Tensor) -> float:
    return float((values_N * weights_N).sum() / weights_N.sum())

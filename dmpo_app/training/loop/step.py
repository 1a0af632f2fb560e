"""One step of training: a batch of draws, their loss, one update of the adapter.

Shapes:  B draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from dmpo_app.errors import RoundFailed
from dmpo_app.objective import Needs, Objective, PairTerms, guarded, ranking_dmpo_of_margins
from dmpo_app.training.data.rankings import RankedDraws
from dmpo_app.training.data.slots import Draw
from dmpo_app.training.distributed.process_group import ALONE, Group
from dmpo_app.training.monitoring.health import PairHealth, pair_health
from dmpo_app.training.reference.denoising_errors import PairErrors


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a model is on the voters' side, summed so that batches add up; ties have no side and do not count."""

    signed_margin: float = 0.0
    num_agreeing: float = 0.0
    num_decided: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.signed_margin + other.signed_margin,
            self.num_agreeing + other.num_agreeing,
            self.num_decided + other.num_decided,
        )

    @property
    def margin(self) -> float:
        """Mean u, counted as positive where it points to the preferred image."""
        return self.signed_margin / max(self.num_decided, 1)

    @property
    def accuracy(self) -> float:
        """Share of pairs whose u points to the preferred image; u = 0 counts half."""
        return self.num_agreeing / self.num_decided if self.num_decided else 0.5


def agreement(margins_B: Tensor, targets_B: Tensor) -> Agreement:
    """Margins against the sides that their targets take."""
    sides = torch.sign(targets_B - 0.5)
    signed = (margins_B * sides)[sides != 0]
    return Agreement(
        signed_margin=float(signed.sum()),
        num_agreeing=float((signed > 0).sum() + 0.5 * (signed == 0).sum()),
        num_decided=signed.numel(),
    )


@dataclass(frozen=True, slots=True)
class LossSettings:
    """What a step minimises: the objective with its numbers and, if wanted, the winner-preserving guard's mu.

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

    def __call__(self, terms: PairTerms, rankings: Sequence[RankedDraws] = ()) -> Tensor:
        """The loss of each pair, (B,). That of a ranking stands at its first link, 0 at the others."""
        seen = terms if self.winner_guard is None else guarded(terms, mu=self.winner_guard)
        losses = self.objective.loss(seen, beta=self.beta, **{**self.objective.options, **self.options})
        for ranked in rankings:
            links_RL, targets_RK = ranked.links_RL.to(losses.device), ranked.targets_RK.to(losses.device)
            of_rankings = ranking_dmpo_of_margins(seen.margin(self.beta)[links_RL], targets_RK)
            losses = losses.index_fill(0, links_RL.flatten(), 0.0).index_put((links_RL[:, 0],), of_rankings)
        return losses


@dataclass(frozen=True, slots=True)
class StepResult:
    """`grad_norm` is the gradient's before it is scaled down. The adapter's norm after the update, and what that is an
    output of its layers (`health.num_outputs`), are filled in by whoever knows its scaling."""

    loss: float
    agreement: Agreement
    pairs: PairHealth = field(default_factory=PairHealth)
    grad_norm: float = 0.0
    adapter_norm: float = 0.0
    adapter_rms: float = 0.0


def train_step(
    errors: PairErrors,
    draws: Sequence[Draw],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    loss_of: LossSettings,
    *,
    max_grad_norm: float,
    micro_pairs: int,
    group: Group = ALONE,
) -> StepResult:
    """Update the adapter once on the vote-weighted mean of the loss over the draws.

    The batch goes through the denoiser in pieces of `micro_pairs` draws, whole blocks where there are rankings, each
    process of the group taking its part of it. Raises RoundFailed, before anything is updated, when loss or gradient is
    not finite.
    """
    weights = _weights_of(draws, errors)
    part = group.part(len(draws), block=errors.dataset.rankings.block)
    results = group.share(lambda: _backward(errors, draws, weights, part, loss_of, micro_pairs))
    total, sides, health = 0.0, Agreement(), PairHealth()
    for loss, agreeing, faring in results:
        total += loss
        sides += Agreement(*agreeing)
        health += PairHealth(*faring)
    group.sum_gradients(parameters.values())
    norm = float(clip_grad_norm_(parameters.values(), max_grad_norm))
    if not (math.isfinite(total) and math.isfinite(norm)):
        optimizer.zero_grad(set_to_none=True)
        raise RoundFailed(
            f"training diverged: the loss is {total} and its gradient's norm {norm}; "
            "try a smaller learning rate (DMPO_ROUND__LEARNING_RATE) or beta (DMPO_ROUND__BETA)"
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepResult(total, sides, health, norm)


def _weights_of(draws: Sequence[Draw], errors: PairErrors) -> Tensor:
    """(B,), the votes behind each draw; they add up to 1."""
    votes = errors.dataset.weights[[draw.pair for draw in draws]]
    votes[[position for position, draw in enumerate(draws) if draw.is_filler]] = 0.0
    return (votes / votes.sum()).to(errors.device)


def _backward(
    errors: PairErrors, draws: Sequence[Draw], weights: Tensor, part: range, loss_of: LossSettings, micro_pairs: int
) -> tuple[float, tuple[Any, ...], tuple[Any, ...]]:
    """Add the gradient of one process's part of the batch; its loss and the fields of its Agreement and PairHealth.

    Positions beyond the batch are filled up with draws from its start that weigh nothing, so that all pieces have one
    shape in all processes.
    """
    count, total, sides, health = len(draws), 0.0, Agreement(), PairHealth()
    for start in range(part.start, part.stop, micro_pairs):
        piece = range(start, min(start + micro_pairs, part.stop))
        own = [draws[position % count] for position in piece]
        terms = errors.terms(own, needs=loss_of.needs, with_residuals=loss_of.winner_guard is not None)
        counted = min(max(count - start, 0), len(own))
        shares = torch.cat([weights[start : start + counted], weights.new_zeros(len(own) - counted)])
        loss = (loss_of(terms, errors.dataset.rankings.among(own)) * shares).sum()
        torch.autograd.backward(loss)
        total += loss.item()
        seen = terms.at([position for position in range(counted) if not own[position].is_filler])
        margins = seen.margin(loss_of.margin_beta).detach()
        sides += agreement(margins, seen.target)
        health += pair_health(seen, margins)
    return total, astuple(sides), astuple(health)

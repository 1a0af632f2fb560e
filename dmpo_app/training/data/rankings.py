"""Rankings learnt from as wholes: pairs of neighbours that are drawn together, and blocks that keep them so.

A ranking of K images is a chain of K - 1 pairs, its links. A block is as many draws as the longest chain has, rounded
up to a power of two. A chain has a block to itself, pairs by themselves share one, and fillers take the places that are
left. Batches and the pieces that they are computed in are whole numbers of blocks.

Shapes:  R rankings of a batch;  K images of each, L = K - 1 links.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from math import comb

import torch
from torch import Tensor

from dmpo_app.domain.round import TrainingVote
from dmpo_app.domain.vote import LETTERS, Outcome
from dmpo_app.errors import RoundFailed
from dmpo_app.objective import ranking_target
from dmpo_app.training.data.slots import Draw, draws_of_step, shuffled

_FIRST = 1 << 40
_PLACES = len(LETTERS) ** 2


def in_pairs(votes: Iterable[TrainingVote], *, only_neighbours: bool = False) -> Iterator[TrainingVote]:
    """The votes, each ranking as votes on all pairs of its set's images: 3 of three images, 6 of four.

    The pair of images a and b keeps the set's id, the others have ids of their own beyond any that a store gives.
    `only_neighbours`: only the pairs of images that follow one another in their set, ab, bc and cd.
    """
    for vote in votes:
        if vote.ranking is None:
            yield vote
            continue
        latents = (vote.latents_a, vote.latents_b, *vote.more_latents)
        for i, j in combinations(range(len(latents)), 2):
            if only_neighbours and j != i + 1:
                continue
            a_first = vote.ranking.index(LETTERS[i]) < vote.ranking.index(LETTERS[j])
            yield replace(
                vote,
                pair_id=pair_of(vote.pair_id, i, j),
                outcome=Outcome.A if a_first else Outcome.B,
                latents_a=latents[i],
                latents_b=latents[j],
            )


def pair_of(set_id: int, i: int, j: int) -> int:
    """The id of the pair of images i < j of a set, counted from 0."""
    return set_id if (i, j) == (0, 1) else _FIRST + set_id * _PLACES + i * len(LETTERS) + j


def share_of_vote(vote: TrainingVote, *, only_neighbours: bool = False) -> float:
    """What one of the pairs counts that a vote is taken as, so that the vote counts 1: the pairs of a ranking are not
    independent. Of neighbours, which are learnt from as a whole, the first pair counts for all."""
    if vote.ranking is None:
        return 1.0
    if only_neighbours:
        return 1.0 if set_of(vote.pair_id) == vote.pair_id else 0.0
    return 1 / comb(len(vote.ranking), 2)


def set_of(pair_id: int) -> int:
    """The set that a pair is one of, which is what it shares timesteps and noise with; a pair by itself is its own."""
    return pair_id if pair_id < _FIRST else (pair_id - _FIRST) // _PLACES


@dataclass(frozen=True, slots=True)
class RankedDraws:
    """Rankings of equally many images among the draws of a batch.

    `links_RL` are the positions of their links, in the order of the set's images; `targets_RK` is q, the probability
    asked for that an image is the best of its set.
    """

    links_RL: Tensor
    targets_RK: Tensor


@dataclass(frozen=True)
class WholeRankings:
    """Which pairs of a data set are links of rankings; `singles` are those by themselves. All are indices into it.

    `targets` has for each chain what is asked of its images. Without chains a block is a single draw.
    """

    chains: tuple[tuple[int, ...], ...] = ()
    targets: tuple[tuple[float, ...], ...] = ()
    singles: tuple[int, ...] = ()

    @property
    def block(self) -> int:
        """Draws of a block: 1 without rankings, 2 where they are of three images, 4 where some are of four."""
        return 1 << (max(map(len, self.chains), default=1) - 1).bit_length()

    def draws_a_step(self, batch_pairs: int) -> int:
        """How many draws a batch of at most `batch_pairs` has. Raises RoundFailed when no block goes into one."""
        if batch_pairs < self.block:
            raise RoundFailed(
                f"a ranking takes {self.block} pairs of a batch, and batches have {batch_pairs}; set "
                f"DMPO_ROUND__BATCH_PAIRS to at least {self.block}, or DMPO_ROUND__RANKINGS=pairs"
            )
        return batch_pairs // self.block * self.block

    def draws_of_step(self, step: int, *, num_pairs: int, batch_pairs: int, num_slots: int, seed: int) -> list[Draw]:
        """The draws of a step, counted from 0, block by block; without rankings those of `slots.draws_of_step`.

        Blocks come in an endless stream of shuffled passes, and pairs by themselves are dealt out anew in each. The
        links of a ranking are in one slot; every place in a block has its own stream of slots.
        """
        if not self.chains:
            return draws_of_step(step, num_pairs=num_pairs, batch_pairs=batch_pairs, num_slots=num_slots, seed=seed)
        blocks_a_step = self.draws_a_step(batch_pairs) // self.block
        num_blocks = len(self.chains) + -(-len(self.singles) // self.block)
        draws: list[Draw] = []
        for position in range(step * blocks_a_step, (step + 1) * blocks_a_step):
            number = shuffled(num_blocks, position, seed, "pairs")
            slots = [shuffled(num_slots, position, seed, f"slots {place}") for place in range(self.block)]
            if number < len(self.chains):
                found = [Draw(pair, slots[0]) for pair in self.chains[number]]
            else:
                dealt = self._dealt(number - len(self.chains), turn=position // num_blocks, seed=seed)
                found = [Draw(pair, slot) for pair, slot in zip(dealt, slots, strict=False)]
            draws += found + [replace(found[0], is_filler=True)] * (self.block - len(found))
        return draws

    def among(self, draws: Sequence[Draw]) -> list[RankedDraws]:
        """The rankings in a batch or in a piece of one, by how many images they are of."""
        found: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for position, draw in enumerate(draws):
            chain = self._chain_of_first.get(draw.pair)
            if chain is not None and not draw.is_filler:
                found[len(self.chains[chain])].append((position, chain))
        return [
            RankedDraws(
                links_RL=torch.tensor([position for position, _ in each])[:, None] + torch.arange(length),
                targets_RK=torch.tensor([self.targets[chain] for _, chain in each]),
            )
            for length, each in sorted(found.items())
        ]

    @cached_property
    def _chain_of_first(self) -> Mapping[int, int]:
        return {links[0]: chain for chain, links in enumerate(self.chains)}

    def _dealt(self, hand: int, *, turn: int, seed: int) -> list[int]:
        count = len(self.singles)
        places = range(hand * self.block, min((hand + 1) * self.block, count))
        return [self.singles[shuffled(count, turn * count + place, seed, "singles")] for place in places]


def whole_rankings(
    pair_ids: Sequence[int],
    votes_of_pair: Mapping[int, Sequence[TrainingVote]],
    *,
    alpha: float,
    annotator_weight: Callable[[int], float],
) -> WholeRankings:
    """Those of a data set whose rankings are `ranked_sets.in_pairs` of neighbours only.

    What several people say of a set is asked for by the mean of their ranks, weighed by `annotator_weight`: at `alpha`
    one rank is worth the log odds that a vote on a pair asks for.
    """
    index = {pair_id: number for number, pair_id in enumerate(pair_ids)}
    chains: list[tuple[int, ...]] = []
    targets: list[tuple[float, ...]] = []
    for pair_id in pair_ids:
        votes = votes_of_pair.get(pair_id, ())
        if votes and votes[0].ranking is not None and set_of(pair_id) == pair_id:
            links = range(len(votes[0].ranking) - 1)
            chains.append(tuple(index[pair_of(pair_id, i, i + 1)] for i in links))
            targets.append(_target(votes, alpha=alpha, annotator_weight=annotator_weight))
    linked = {number for chain in chains for number in chain}
    singles = tuple(number for number in range(len(pair_ids)) if number not in linked)
    return WholeRankings(tuple(chains), tuple(targets), singles)


def _target(
    votes: Sequence[TrainingVote], *, alpha: float, annotator_weight: Callable[[int], float]
) -> tuple[float, ...]:
    rankings = [vote.ranking for vote in votes if vote.ranking is not None]
    weights = torch.tensor([annotator_weight(vote.annotator_id) for vote in votes], dtype=torch.float64)
    ranks = torch.tensor(
        [[ranking.index(letter) for letter in LETTERS[: len(ranking)]] for ranking in rankings], dtype=torch.float64
    )
    mean_ranks = weights @ ranks / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)
    log_odds = math.log((1 - alpha) / alpha)  # 0 at alpha = 1/2, where nobody's order asks for anything
    temperature = 1 / log_odds if log_odds > 0 else math.inf
    return tuple(ranking_target(-mean_ranks[None], temperature=temperature)[0].tolist())

"""The examples of a round: pairs in slots of timestep and noise, and whole rankings in blocks.

A pair is only ever noised in its `num_slots` fixed ways, its slots, so reference errors can be cached. Everything here
is a pure function of its arguments: a resumed round, a restarted process and another machine use the same.

A ranking of K images is a chain of K - 1 pairs, its links. A block is as many examples as the longest chain has,
rounded up to a power of two. A chain has a block to itself, pairs by themselves share one, and padding takes the places
that are left. Batches and the pieces that they are computed in are whole numbers of blocks.

Shapes:  C H W latent channels, height, width;  R rankings of a batch;  K images of each, L = K - 1 links.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import combinations
from math import comb
from statistics import NormalDist
from typing import Literal

import torch
from torch import Tensor

from dmpo_app.domain.lineage import TrainingVote
from dmpo_app.domain.vote import LETTERS, Outcome
from dmpo_app.errors import RoundFailedError
from dmpo_app.objective import ranking_target


@dataclass(frozen=True, slots=True)
class Slot:
    """One of a pair's fixed (timestep, noise) samples; both of its images get this timestep and this noise."""

    timestep: int
    noise_seed: int


@dataclass(frozen=True, slots=True)
class Example:
    """A training example: one pair in one slot. `pair` is an index into the dataset.

    Padding only gives a batch its shape: it repeats another example and counts nothing.
    """

    pair: int
    slot: int
    is_padding: bool = False


@dataclass(frozen=True, slots=True)
class TimestepDensity:
    """The density of the slots over the noise levels t in 0..1; SD3 (arXiv:2403.03206), section 3.1.

    uniform        t = u
    logit_normal   logit t ~ Normal(mean, scale): t = sigmoid(mean + scale * Phi^-1(u))
    mode           t = u' mapped by f(u) = 1 - u - scale (cos^2(pi u / 2) - 1 + u), which falls, so u' = 1 - u

    Each is an inverse distribution function: equal shares of u are equal shares of the slots.
    """

    name: Literal["uniform", "logit_normal", "mode"] = "uniform"
    mean: float = 0.0
    scale: float = 1.0

    def noise_level(self, quantile: float) -> float:
        """The noise level t in 0..1 for a `quantile` u in 0..1; grows with u."""
        if self.name == "logit_normal":
            inside = min(max(quantile, 1e-9), 1 - 1e-9)
            return 1 / (1 + math.exp(-self.mean - self.scale * NormalDist().inv_cdf(inside)))
        if self.name == "mode":
            mirrored = 1 - quantile
            return 1 - mirrored - self.scale * (math.cos(math.pi * mirrored / 2) ** 2 - 1 + mirrored)
        return quantile


UNIFORM = TimestepDensity()


def compute_slot(
    pair_id: int, slot: int, *, num_slots: int, num_timesteps: int, seed: int, density: TimestepDensity = UNIFORM
) -> Slot:
    """Compute slot `slot` of a pair; its timestep lies in the slot's own equal share of 0..num_timesteps - 1.

    The slots of a pair together cover all noise levels evenly, or as `density` says: slot k of n lies between its
    quantiles k/n and (k+1)/n. Where inside its share each one falls differs between pairs. `seed` belongs to the
    lineage and not to the round, so that later rounds find the same slots.
    """
    if not 0 <= slot < num_slots:
        raise ValueError(f"slot {slot} is not in 0..{num_slots - 1}")
    low = -(-slot * num_timesteps // num_slots)
    high = max(low + 1, -(-(slot + 1) * num_timesteps // num_slots))
    key = keyed_seed(seed, "slot", pair_id, slot)
    if density.name != "uniform":
        level = density.noise_level((slot + key / 2**63) / num_slots)
        return Slot(timestep=min(max(int(level * num_timesteps), 0), num_timesteps - 1), noise_seed=key)
    return Slot(timestep=min(low + key % (high - low), num_timesteps - 1), noise_seed=key)


def drops_caption(pair_id: int, slot: int, *, share: float, seed: int) -> bool:
    """True for a slot whose caption is dropped, which is so in a `share` (0 to 1) of all slots.

    As fixed as the slot's noise, because reference errors are cached by pair and slot, but independent of it: no noise
    level loses its captions more often than another. What a smaller share drops, a larger one drops too.
    """
    return keyed_seed(seed, "caption", pair_id, slot) < share * 2**63


def noise_for_slot(slot: Slot, shape_CHW: tuple[int, ...]) -> Tensor:
    """The slot's standard normal noise, float32 on the CPU whatever device trains, so that it is the same anywhere."""
    return torch.randn(shape_CHW, generator=torch.Generator().manual_seed(slot.noise_seed))


def examples_for_step(step: int, *, num_pairs: int, batch_pairs: int, num_slots: int, seed: int) -> list[Example]:
    """The `batch_pairs` examples of a step, counted from 0.

    Pairs come in an endless stream of shuffled passes over the data, slots in an endless stream of shuffled passes over
    the slots: every pair is used equally often, and the noise levels of a batch are spread as evenly as its size
    allows. A batch larger than the data holds a pair twice, so that all batches have one shape.
    """
    positions = range(step * batch_pairs, (step + 1) * batch_pairs)
    pairs = [shuffled_index(num_pairs, position, seed, "pairs") for position in positions]
    slots = [shuffled_index(num_slots, position, seed, "slots") for position in positions]
    return [Example(pair, slot) for pair, slot in zip(pairs, slots, strict=True)]


def evaluation_slots(num_slots: int, count: int = 4) -> list[int]:
    """The slots of evaluations: `count` spread over the noise levels, always the same; all if there are no more."""
    if count >= num_slots:
        return list(range(num_slots))
    return [(2 * i + 1) * num_slots // (2 * count) for i in range(count)]


def keyed_seed(*parts: int | str) -> int:
    """Compute a seed in 0..2^63 - 1 from a sha256 over the parts; unlike `hash`, the same in every process."""
    digest = hashlib.sha256("\0".join(f"{type(part).__name__}:{part}" for part in parts).encode())
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def shuffled_index(count: int, position: int, seed: int, stream: str) -> int:
    """The element at `position` of an endless sequence of shuffled passes over 0..count - 1."""
    return int(_pass(count, keyed_seed(seed, stream, position // count))[position % count])


@lru_cache(maxsize=8)  # a pass over a million pairs takes longer to shuffle than a step to compute
def _pass(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


_FIRST = 1 << 40
_PLACES = len(LETTERS) ** 2


def split_rankings(votes: Iterable[TrainingVote], *, only_neighbours: bool = False) -> Iterator[TrainingVote]:
    """Split each ranking among the votes into votes on all pairs of its images: 3 of three images, 6 of four.

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
                pair_id=pair_id_in_set(vote.pair_id, i, j),
                outcome=Outcome.A if a_first else Outcome.B,
                latents_a=latents[i],
                latents_b=latents[j],
            )


def pair_id_in_set(set_id: int, i: int, j: int) -> int:
    """The id of the pair of images i < j of a set, counted from 0."""
    return set_id if (i, j) == (0, 1) else _FIRST + set_id * _PLACES + i * len(LETTERS) + j


def vote_share_per_pair(vote: TrainingVote, *, only_neighbours: bool = False) -> float:
    """The share of a vote that falls to one of the pairs of its ranking, so that the vote counts 1.

    The pairs of a ranking are not independent. Of neighbours, which are learnt from as a whole, the first pair counts
    for all.
    """
    if vote.ranking is None:
        return 1.0
    if only_neighbours:
        return 1.0 if set_id_from_pair_id(vote.pair_id) == vote.pair_id else 0.0
    return 1 / comb(len(vote.ranking), 2)


def set_id_from_pair_id(pair_id: int) -> int:
    """The id of a pair's set, whose pairs share timesteps and noise; a pair by itself is its own set."""
    return pair_id if pair_id < _FIRST else (pair_id - _FIRST) // _PLACES


@dataclass(frozen=True, slots=True)
class RankedExamples:
    """Rankings of equally many images among the examples of a batch.

    `links_RL` are the positions of their links, in the order of the set's images; `targets_RK` is q, the probability
    asked for that an image is the best of its set.
    """

    links_RL: Tensor
    targets_RK: Tensor


@dataclass(frozen=True)
class WholeRankings:
    """The pairs of a data set that are links of rankings (`chains`), and the others (`singles`), as indices into it.

    `targets` has for each chain the target q of its images. Without chains a block is a single example.
    """

    chains: tuple[tuple[int, ...], ...] = ()
    targets: tuple[tuple[float, ...], ...] = ()
    singles: tuple[int, ...] = ()

    @property
    def block(self) -> int:
        """The examples of a block: 1 without rankings, 2 where they are of three images, 4 where some are of four."""
        return 1 << (max(map(len, self.chains), default=1) - 1).bit_length()

    def examples_per_step(self, batch_pairs: int) -> int:
        """The number of examples in a batch of at most `batch_pairs`. Raises RoundFailedError when no block fits."""
        if batch_pairs < self.block:
            raise RoundFailedError(
                f"a ranking takes {self.block} pairs of a batch, and batches have {batch_pairs}; set "
                f"DMPO_ROUND__BATCH_PAIRS to at least {self.block}, or DMPO_ROUND__RANKINGS=pairs"
            )
        return batch_pairs // self.block * self.block

    def examples_for_step(
        self, step: int, *, num_pairs: int, batch_pairs: int, num_slots: int, seed: int
    ) -> list[Example]:
        """The examples of a step, counted from 0, block by block; without rankings as the function of this name.

        Blocks come in an endless stream of shuffled passes, and pairs by themselves are shuffled anew in each. The
        links of a ranking are in one slot; every place in a block has its own stream of slots.
        """
        if not self.chains:
            return examples_for_step(step, num_pairs=num_pairs, batch_pairs=batch_pairs, num_slots=num_slots, seed=seed)
        blocks_a_step = self.examples_per_step(batch_pairs) // self.block
        num_blocks = len(self.chains) + -(-len(self.singles) // self.block)
        examples: list[Example] = []
        for position in range(step * blocks_a_step, (step + 1) * blocks_a_step):
            number = shuffled_index(num_blocks, position, seed, "pairs")
            slots = [shuffled_index(num_slots, position, seed, f"slots {place}") for place in range(self.block)]
            if number < len(self.chains):
                block_examples = [Example(pair, slots[0]) for pair in self.chains[number]]
            else:
                single_pairs = self._deal_singles(number - len(self.chains), turn=position // num_blocks, seed=seed)
                block_examples = [Example(pair, slot) for pair, slot in zip(single_pairs, slots, strict=False)]
            padding = Example(block_examples[0].pair, block_examples[0].slot, True)
            examples += block_examples + [padding] * (self.block - len(block_examples))
        return examples

    def rankings_in(self, examples: Sequence[Example]) -> list[RankedExamples]:
        """The rankings in a batch or in a piece of one, grouped by their number of images."""
        positions_by_length: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for position, example in enumerate(examples):
            chain = self._chain_of_first.get(example.pair)
            if chain is not None and not example.is_padding:
                positions_by_length[len(self.chains[chain])].append((position, chain))
        return [
            RankedExamples(
                links_RL=torch.tensor([position for position, _ in each])[:, None] + torch.arange(length),
                targets_RK=torch.tensor([self.targets[chain] for _, chain in each]),
            )
            for length, each in sorted(positions_by_length.items())
        ]

    @cached_property
    def _chain_of_first(self) -> Mapping[int, int]:
        return {links[0]: chain for chain, links in enumerate(self.chains)}

    def _deal_singles(self, block_number: int, *, turn: int, seed: int) -> list[int]:
        count = len(self.singles)
        places = range(block_number * self.block, min((block_number + 1) * self.block, count))
        return [self.singles[shuffled_index(count, turn * count + place, seed, "singles")] for place in places]


def build_whole_rankings(
    pair_ids: Sequence[int],
    votes_of_pair: Mapping[int, Sequence[TrainingVote]],
    *,
    alpha: float,
    annotator_weight: Callable[[int], float],
) -> WholeRankings:
    """Build the whole rankings of a data set, whose votes are `split_rankings` of neighbours only.

    Several rankings of a set give one target from the mean of their ranks, weighted by `annotator_weight`: at `alpha`
    one rank is worth the log odds that a vote on a pair asks for.
    """
    index = {pair_id: number for number, pair_id in enumerate(pair_ids)}
    chains: list[tuple[int, ...]] = []
    targets: list[tuple[float, ...]] = []
    for pair_id in pair_ids:
        votes = votes_of_pair.get(pair_id, ())
        if votes and votes[0].ranking is not None and set_id_from_pair_id(pair_id) == pair_id:
            links = range(len(votes[0].ranking) - 1)
            chains.append(tuple(index[pair_id_in_set(pair_id, i, i + 1)] for i in links))
            targets.append(_target(votes, alpha=alpha, annotator_weight=annotator_weight))
    linked_indices = {number for chain in chains for number in chain}
    singles = tuple(number for number in range(len(pair_ids)) if number not in linked_indices)
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

"""Slots: the fixed set of (timestep, noise) samples of a pair, and the order in which a round visits them.

Everything here is a pure function of its arguments, so a resumed round, a restarted process and another machine use
the same. Reference errors can be cached because a pair is only ever noised in `num_slots` ways.

Shapes:  C H W latent channels, height, width.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import torch
from torch import Tensor


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

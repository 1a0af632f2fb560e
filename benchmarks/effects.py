"""Error rates of the statistics of effects: versions that moved nothing but are said to, and small effects found.

    python -m benchmarks.effects                            about 5 minutes; nothing but numpy
    python -m benchmarks.effects --versions 200 --seed 1

Simulated differences between two versions' images: 28 measures as correlated as a random mixture makes them, of heavy
tails (Student's t with 4 degrees of freedom) or skewed (exponential, mean 0), the seeds of a prompt sharing two thirds
of their variance. A null version has no mean difference in any measure; a real one moves the first, by a share of the
standard deviation between the prompts' mean differences.
"""

import argparse
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import machine, print_table
from dmpo_app.judging.effects import FAMILY_LEVEL, sign_flip_p_values

NUM_MEASURES = 28
NUM_SEEDS = 2
SHARED = 2 / 3
PROMPTS = (8, 16, 32)
EFFECTS = (0.5, 0.75, 1.0, 1.5)
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of versions: those said to have moved anything, those of which the first measure was, or another one."""

    anything: float
    first: float
    another: float


def draw_differences(rng: np.random.Generator, num_prompts: int, tails: str) -> Floats:
    """The prompts' mean differences (P, K) of a null version, each measure of variance 1."""

    def draw(*shape: int) -> Floats:
        if tails == "skewed":
            return np.asarray(rng.exponential(size=shape) - 1.0)
        return np.asarray(rng.standard_t(4, size=shape) / np.sqrt(2.0))  # its variance is 2

    shared = draw(num_prompts, 1, NUM_MEASURES)
    own = draw(num_prompts, NUM_SEEDS, NUM_MEASURES)
    means = (np.sqrt(SHARED) * shared + np.sqrt(1 - SHARED) * own).mean(1)
    mixing = rng.standard_normal((NUM_MEASURES, NUM_MEASURES)) + 2 * np.eye(NUM_MEASURES)
    mixed: Floats = means @ mixing / np.linalg.norm(mixing, axis=0)
    return np.asarray(mixed / np.sqrt(SHARED + (1 - SHARED) / NUM_SEEDS))


def count_rates(rng: np.random.Generator, num_versions: int, num_prompts: int, tails: str, effect: float) -> Rates:
    """Test versions whose first measure moves by `effect` standard deviations between prompts."""
    moved = np.zeros((num_versions, NUM_MEASURES), bool)
    for row in moved:
        differences = draw_differences(rng, num_prompts, tails)
        differences[:, 0] += effect
        row[:] = sign_flip_p_values(differences) <= FAMILY_LEVEL
    return Rates(float(moved.any(1).mean()), float(moved[:, 0].mean()), float(moved[:, 1:].any(1).mean()))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="False positives and power of the effects of a version.")
    parser.add_argument("--versions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    print(f"{machine()}; {arguments.versions} versions a line, seed {arguments.seed}\n")
    nulls = [
        (tails, prompts, f"{count_rates(rng, arguments.versions, prompts, tails, 0.0).anything:.1%}")
        for tails, prompts in product(("heavy", "skewed"), PROMPTS)
    ]
    print_table(["tails", "prompts", "nothing moved, something said"], nulls)
    real = []
    for prompts, effect in product(PROMPTS, EFFECTS):
        rates = count_rates(rng, arguments.versions // 4, prompts, "heavy", effect)
        real.append((prompts, effect, f"{rates.first:.0%}", f"{rates.another:.1%}"))
    print_table(["prompts", "effect, in deviations between prompts", "found", "another measure said"], real)


if __name__ == "__main__":
    main()

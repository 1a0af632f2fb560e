"""Errors and power of the test by duels (`dmpo_app/judging/duel_test.py`), by simulation: minutes, no model.

    python -m benchmarks.duel_test [--simulations 10000] [--duels 2000]

Every simulated test is looked at after every judgement and stopped at the first verdict. `without weights` is the same
test that takes every judgement for an independent one. People and prompts differ by effects that are added to one half,
in probability; "better" and "worse" are the shares of tests that end so. The bets are those of the studio, written for
many tests at once; what only a few tests need, the cap among many annotators, is left to the studio's own functions.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import print_table
from dmpo_app.domain.judging import Verdict
from dmpo_app.judging.duel_test import (
    DEFAULT_RULES,
    MIN_CORRELATION,
    PRIOR_CORRELATION,
    PRIOR_PAIRS,
    DuelBets,
    DuelRules,
    log_e_value,
    verdict_from,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REPORTED_SEED = 20_261_130
"""The seed of the reported numbers; the test was tuned on seeds 1 to 7."""
CHUNK = 2000

Effects = Callable[[np.random.Generator, tuple[int, int]], Floats]


def normal(deviation: float) -> Effects:
    """Effects of this standard deviation."""
    return lambda rng, shape: rng.normal(size=shape) * deviation


def camps(distance: float) -> Effects:
    """Effects of two camps of the same size: half of them are for the candidate, half against it."""
    return lambda rng, shape: np.where(rng.random(shape) < 0.5, distance, -distance)


def alike(_rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """No effects."""
    return np.zeros(shape)


def uniform(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Effects by which preferences are uniform between never and always."""
    return rng.random(shape) - 0.5


@dataclass(frozen=True, slots=True)
class Case:
    """A world of duels.

    hostile_share: of the duels, from one person who is always for the candidate. hostile_people: share of the people
    who are. fresh: every duel has a prompt of its own. centred: the mean of these very people is `mean`.
    """

    name: str
    num_annotators: int = 1
    num_prompts: int = 32
    annotators: Effects = alike
    prompts: Effects = alike
    mean: float = 0.5
    ties: float = 0.0
    hostile_share: float = 0.0
    hostile_people: float = 0.0
    fresh: bool = False
    centred: bool = False

    def sample(self, rng: np.random.Generator, num_tests: int, num_duels: int) -> tuple[Floats, Ints, Ints]:
        """(x, annotator, prompt), each (S, N); x is +1, -1, or 0 for a tie."""
        shape = (num_tests, num_duels)
        num_prompts = num_duels if self.fresh else self.num_prompts
        annotator_effects = self.annotators(rng, (num_tests, self.num_annotators))
        if self.centred:
            annotator_effects -= annotator_effects.mean(1, keepdims=True)
        prompt_effects = self.prompts(rng, (num_tests, num_prompts))
        annotator = rng.integers(self.num_annotators, size=shape)
        if self.hostile_share:
            annotator = np.where(rng.random(shape) < self.hostile_share, 0, annotator)
        prompt = np.tile(np.arange(num_duels), (num_tests, 1)) if self.fresh else rng.integers(num_prompts, size=shape)
        tests = np.arange(num_tests)[:, None]
        chance = self.mean + annotator_effects[tests, annotator] + prompt_effects[tests, prompt]
        x = np.where(rng.random(shape) < chance, 1.0, -1.0)
        x[rng.random(shape) < self.ties] = 0.0
        if self.hostile_share:
            x[annotator == 0] = 1.0
        x[annotator < self.hostile_people * self.num_annotators] = 1.0
        return x, annotator, prompt


NULLS = (
    Case("independent judgements", fresh=True),
    Case("independent judgements, 30 % ties", fresh=True, ties=0.3),
    Case("one person, 32 prompts, spread 0.2", prompts=normal(0.2)),
    Case("one person, 32 prompts, uniform", prompts=uniform),
    Case("one person, 10 prompts, uniform", num_prompts=10, prompts=uniform),
    Case("30 people and 32 prompts, spread 0.15 each", 30, 32, normal(0.15), normal(0.15)),
    Case("30 people in camps of 80 and 20 %, 100 prompts", 30, 100, camps(0.3), normal(0.1)),
    Case("30 people who say always or never, 100 prompts", 30, 100, camps(0.5)),
    Case("100 people, spread 0.2, 32 prompts, uniform", 100, 32, normal(0.2), uniform),
    Case("10 people, spread 0.2, their mean one half", 10, 32, normal(0.2), normal(0.15), centred=True),
    Case("10 people, spread 0.2, drawn from all", 10, 32, normal(0.2), normal(0.15)),
    Case("1,000 people, a hostile one gives 5 %", 1000, 100, hostile_share=0.05),
    Case("1,000 people, a hostile one gives 50 %", 1000, 100, hostile_share=0.5),
    Case("30 people, a hostile one gives 50 %", 30, 100, hostile_share=0.5),
    Case("1,000 people, 50 of them hostile", 1000, 100, hostile_people=0.05),
)
POWERS = (
    *(Case(f"{mean:.0%}, independent", mean=mean, fresh=True) for mean in (0.55, 0.6, 0.65, 0.7, 0.8, 0.9)),
    Case("70 %, independent, 30 % ties", mean=0.7, fresh=True, ties=0.3),
    Case("70 %, one person, 32 prompts", mean=0.7),
    Case("70 %, one person, 32 prompts, spread 0.15", mean=0.7, prompts=normal(0.15)),
    Case("70 %, 30 people, 100 prompts, spread 0.1 each", 30, 100, normal(0.1), normal(0.1), 0.7),
    Case("70 %, 30 people, 100 prompts, spread 0.2 each", 30, 100, normal(0.2), normal(0.2), 0.7),
    Case("60 %, 100 people, 100 prompts, spread 0.1 each", 100, 100, normal(0.1), normal(0.1), 0.6),
)


class Clusters:
    """The annotators, or prompts, of S tests at once: `duel_test._Clusters`, test by test."""

    def __init__(self, num_tests: int, num_clusters: int) -> None:
        self.rows = np.arange(num_tests)
        self.counts, self.totals, self.weights = (np.zeros((num_tests, num_clusters)) for _ in range(3))
        self.products, self.pairs = np.zeros(num_tests), np.zeros(num_tests)

    def correlation(self, count: Floats, total: Floats) -> Floats:
        products_between = (total**2 - count) / 2 - self.products
        pairs_between = count * (count - 1) / 2 - self.pairs
        chance = np.maximum(0.0, products_between / (pairs_between + PRIOR_PAIRS))
        excess = PRIOR_PAIRS * PRIOR_CORRELATION + self.products - self.pairs * chance
        return np.clip(excess / (PRIOR_PAIRS + self.pairs), MIN_CORRELATION, 1.0)

    def add(self, cluster: Ints, x: Floats, weight: Floats) -> None:
        place = (self.rows, cluster)
        self.products += x * self.totals[place]
        self.pairs += np.abs(x) * self.counts[place]
        self.counts[place] += np.abs(x)
        self.totals[place] += x
        self.weights[place] += weight


def weigh(
    x: Floats, annotator: Ints, prompt: Ints, *, is_crowd: bool, share_limit: float
) -> Iterator[tuple[Floats, Floats]]:
    """(V, T), (S,) each, after every judgement: `duel_test.DuelBets` for S tests at once."""
    annotators, prompts = Clusters(len(x), int(annotator.max()) + 1), Clusters(len(x), int(prompt.max()) + 1)
    weight_sum, balance, count, total = (np.zeros(len(x)) for _ in range(4))
    for step in range(x.shape[1]):
        answer, who, what = x[:, step], annotator[:, step], prompt[:, step]
        weight = 1 - 2 * prompts.correlation(count, total) * prompts.weights[prompts.rows, what]
        own = annotators.weights[annotators.rows, who]
        if is_crowd:
            weight = weight - 2 * annotators.correlation(count, total) * own
        weight = np.clip(np.minimum(weight, 1 + share_limit * weight_sum - own), 0.0, 1.0) * np.abs(answer)
        annotators.add(who, answer, weight)
        prompts.add(what, answer, weight)
        weight_sum, balance = weight_sum + weight, balance + weight * answer
        count, total = count + np.abs(answer), total + answer
        yield weight_sum, balance


@dataclass(slots=True)
class Stops:
    """The first verdicts of S tests: +1 better, -1 worse, 0 none, and the judgements until then."""

    verdict: Ints
    at: Floats

    @classmethod
    def none(cls, num_tests: int) -> "Stops":
        return cls(np.zeros(num_tests, np.int64), np.full(num_tests, np.inf))

    def look(self, step: int, weight: Floats, balance: Floats, where: NDArray[np.bool_], rules: DuelRules) -> None:
        threshold = np.log(rules.threshold)
        better, worse = log_e_value(weight, balance) >= threshold, log_e_value(weight, -balance) >= threshold
        is_new = where & (better | worse) & (step + 1 < self.at)
        self.verdict[is_new] = np.where(better, 1, -1)[is_new]
        self.at[is_new] = step + 1

    def take_earlier(self, other: "Stops") -> None:
        is_earlier = other.at < self.at
        self.verdict[is_earlier], self.at[is_earlier] = other.verdict[is_earlier], other.at[is_earlier]


def num_seen(annotator: Ints) -> Ints:
    """(S, N) distinct annotators up to each judgement."""
    num_tests, num_duels = annotator.shape
    first = np.full((num_tests, int(annotator.max()) + 1), num_duels)
    for step in range(num_duels - 1, -1, -1):
        first[np.arange(num_tests), annotator[:, step]] = step
    is_first = np.zeros((num_tests, num_duels + 1), np.int64)
    np.add.at(is_first, (np.arange(num_tests)[:, None], first), 1)
    return np.cumsum(is_first[:, :num_duels], axis=1)


def run_tests(x: Floats, annotator: Ints, prompt: Ints, rules: DuelRules = DEFAULT_RULES) -> Stops:
    """The verdicts under continuous looks. As in `compare_by_duels`, the rules are those for as many as have judged."""
    stops, seen = Stops.none(len(x)), num_seen(annotator)
    for share_limit, counts in share_limits(seen, rules):
        is_few = np.isin(seen, counts)
        prefix = slice(0, int(np.flatnonzero(is_few.any(0)).max(initial=-1)) + 1)
        steps = weigh(x[:, prefix], annotator[:, prefix], prompt[:, prefix], is_crowd=False, share_limit=share_limit)
        for step, (weight, balance) in enumerate(steps):
            stops.look(step, weight, balance, is_few[:, step], rules)
    if rules.is_crowd(int(seen.max())):
        crowd = Stops.none(len(x))
        steps = weigh(x, annotator, prompt, is_crowd=True, share_limit=rules.max_annotator_share)
        for step, (weight, balance) in enumerate(steps):
            crowd.look(step, weight, balance, seen[:, step] * rules.max_annotator_share >= 1, rules)
        for test in np.flatnonzero(crowd.at < stops.at):
            crowd.verdict[test], crowd.at[test] = follow(x[test], annotator[test], prompt[test], crowd.at[test], rules)
        stops.take_earlier(crowd)
    return stops


def follow(x: Floats, annotator: Ints, prompt: Ints, start: float, rules: DuelRules) -> tuple[int, float]:
    """The first verdict of one test from the look after `start` judgements on, by the studio's own functions."""
    bets = DuelBets(is_crowd=True, share_limit=rules.max_annotator_share)
    for number, (answer, who, what) in enumerate(zip(x, annotator, prompt, strict=True), start=1):
        if answer != 0:
            bets.add(int(who), str(what), float(answer))
        if number >= start:
            verdict = verdict_from(*bets.evidence(rules.max_annotator_share), np.log(rules.threshold))
            if verdict is not Verdict.UNSURE:
                return (1 if verdict is Verdict.BETTER else -1), float(number)
    return 0, np.inf


def share_limits(seen: Ints, rules: DuelRules) -> list[tuple[float, list[int]]]:
    """The limits of too few annotators for the cap, each with the numbers of annotators that it is for."""
    limits: dict[float, list[int]] = {}
    for count in range(1, int(seen.max()) + 1):
        if not rules.is_crowd(count):
            limits.setdefault(rules.share_limit(count), []).append(count)
    return list(limits.items())


def run_unweighted(x: Floats, rules: DuelRules = DEFAULT_RULES) -> Stops:
    """The verdicts of the test that takes every judgement for an independent one."""
    stops, everywhere = Stops.none(len(x)), np.ones(len(x), np.bool_)
    weights, balances = np.cumsum(np.abs(x), 1), np.cumsum(x, 1)
    for step in range(x.shape[1]):
        stops.look(step, weights[:, step], balances[:, step], everywhere, rules)
    return stops


def simulate(case: Case, seed: int, num_tests: int, num_duels: int) -> tuple[Stops, Stops]:
    """The verdicts with the weights and without them, in chunks."""
    rng = np.random.default_rng(seed)
    chunks = []
    for start in range(0, num_tests, CHUNK):
        x, annotator, prompt = case.sample(rng, min(CHUNK, num_tests - start), num_duels)
        chunks.append((run_tests(x, annotator, prompt), run_unweighted(x)))
    weighted, unweighted = zip(*chunks, strict=True)
    return join(weighted), join(unweighted)


def join(stops: tuple[Stops, ...]) -> Stops:
    return Stops(np.concatenate([one.verdict for one in stops]), np.concatenate([one.at for one in stops]))


def share(stops: Stops, verdict: int) -> str:
    return f"{(stops.verdict == verdict).mean():.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--duels", type=int, default=2000)
    parser.add_argument("--only", default="", help="the cases with this text in their name")
    parser.add_argument("--seed", type=int, default=REPORTED_SEED)
    arguments = parser.parse_args()
    started = time.monotonic()
    rows = []
    for case in (case for case in NULLS if arguments.only in case.name):
        weighted, unweighted = simulate(case, arguments.seed, arguments.simulations, arguments.duels)
        rows.append([case.name, share(weighted, 1), share(weighted, -1), share(unweighted, 1)])
        print(*rows[-1], sep=" | ", flush=True)
    print_table(["nobody prefers either", "better", "worse", "better, without weights"], rows)
    rows = []
    for case in (case for case in POWERS if arguments.only in case.name):
        tests, _ = simulate(case, arguments.seed, max(1, arguments.simulations // 5), arguments.duels)
        quarters = [f"{value:.0f}" for value in np.quantile(tests.at, (0.25, 0.5, 0.75, 0.9), method="higher")]
        rows.append([case.name, share(tests, 1), share(tests, -1), *quarters])
        print(*rows[-1], sep=" | ", flush=True)
    print_table(["prefer the candidate", "better", "worse", "judgements: 25 %", "median", "75 %", "90 %"], rows)
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()

"""Error rates of the gate over simulated rounds: versions refused and published, by the studio's own functions.

    python -m benchmarks.gate [--rounds 1000] [--seed 100] [--votes 100] [--per-prompt 2]

A round is simulated as what the gate sees of one: margins of both versions on held-out pairs, and votes on these. A
version that is right on a share A of all pairs has margins scale * (z(A) + e), positive towards the better image, z
the normal quantile; e is normal and alike within a prompt (`--alike`) and between the two versions (`--shared`): pairs
that one version finds hard, the other does too. A vote is the other way round with probability `wrong`. A new version
is evaluated at four steps whose margins grow up to its scale while it is equally right at all of them; the yardstick
chooses the step, and the same votes judge it, as in a round. The rule before this one chose by the DMPO loss, and
refused what was worse by it by more than a standard error; it is simulated on the very same rounds (`before`).

The threshold `verdict.REFUSE_BELOW` was chosen on other simulations than these (seeds 0 and 1, another script); the
table is for the seed given here.
"""

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch

from benchmarks.report import print_table
from dmpo_app.domain.judging import Verdict
from dmpo_app.domain.verdict import GateVerdict
from dmpo_app.objective import dmpo, soft_target
from dmpo_app.training.monitoring.evaluation import voted_probability
from dmpo_app.training.monitoring.gate import Floats, clustered_mean, judge

ALPHA = 0.05
STEPS_SHARED = 0.8
"""Correlation of the errors of a round's evaluations among each other."""
_Z = NormalDist().inv_cdf
SMALL, LARGE = 1.0, 6.0
"""Scales of margins: about their mean size."""


@dataclass(frozen=True, slots=True)
class Case:
    """A case: shares of pairs that both versions are right on (None: the base model), and scales of their margins.

    `error`: the outcome that the short table counts, "refused" or "published"; empty: the case is not in it.
    """

    name: str
    live: float | None
    new: float
    live_scale: float = LARGE
    new_scale: float = LARGE
    error: str = ""


CASES = (
    Case("better than the base (65 %)", None, 0.65, error="refused"),
    Case("better than the base (65 %), small margins", None, 0.65, new_scale=SMALL),
    Case("learnt nothing, against the base (50 %)", None, 0.5),
    Case("worse than the base (40 %)", None, 0.4, error="published"),
    Case("worse by 20 points (80 to 60 %)", 0.8, 0.6, error="published"),
    Case("the same, its margins larger", 0.8, 0.6, live_scale=SMALL),
    Case("the same, its margins smaller", 0.8, 0.6, new_scale=SMALL),
    Case("worse by 10 points (80 to 70 %)", 0.8, 0.7, error="published"),
    Case("as good (70 %)", 0.7, 0.7, error="refused"),
    Case("the same, its margins larger", 0.7, 0.7, live_scale=SMALL),
    Case("the same, its margins smaller", 0.7, 0.7, new_scale=SMALL),
    Case("better by 10 points (70 to 80 %)", 0.7, 0.8, error="refused"),
    Case("better by 20 points (60 to 80 %)", 0.6, 0.8),
)


@dataclass(frozen=True, slots=True)
class World:
    """The conditions that all rounds of a table row have in common."""

    votes: int
    wrong: float
    per_prompt: int
    alike: float
    shared: float

    @property
    def prompts(self) -> list[str]:
        return [str(index // self.per_prompt) for index in range(self.votes)]

    def errors(self, rng: np.random.Generator) -> Floats:
        """Standard normal errors, (N,), alike within a prompt."""
        num_prompts = -(-self.votes // self.per_prompt)
        by_prompt = np.repeat(rng.standard_normal(num_prompts), self.per_prompt)[: self.votes]
        errors: Floats = np.sqrt(self.alike) * by_prompt + np.sqrt(1 - self.alike) * rng.standard_normal(self.votes)
        return errors


@dataclass(frozen=True, slots=True)
class Round:
    """A simulated round: the votes' shares for image a and the margins, (N,); `evaluations` at four steps, (4, N)."""

    shares: Floats
    live: Floats
    evaluations: Floats


def simulate(world: World, case: Case, rng: np.random.Generator) -> Round:
    """Simulate a round in which image a is the better one of every pair; nothing in the gate knows sides."""
    shares = np.where(rng.random(world.votes) < world.wrong, 0.0, 1.0)
    common, own = world.errors(rng), world.errors(rng)
    live = np.zeros(world.votes)
    if case.live is not None:
        live = case.live_scale * (_Z(case.live) + _mix(common, world.errors(rng), world.shared))
    evaluations = np.stack(
        [
            case.new_scale * step / 4 * (_Z(case.new) + _mix(common, _mix(own, world.errors(rng)), world.shared))
            for step in range(1, 5)
        ]
    )
    return Round(shares, live, evaluations)


def _mix(first: Floats, second: Floats, share: float = STEPS_SHARED) -> Floats:
    mixed: Floats = np.sqrt(share) * first + np.sqrt(1 - share) * second
    return mixed


def judge_now(world: World, one: Round) -> GateVerdict:
    """Choose the step and judge it as the studio does."""
    scores = voted_probability(torch.tensor(one.evaluations), torch.tensor(one.shares)).mean(1)
    return judge(
        one.evaluations[int(scores.argmax())].tolist(),
        one.live.tolist(),
        vote_shares=one.shares.tolist(),
        weights=[1.0] * world.votes,
        prompts=world.prompts,
        num_votes=world.votes,
        live_version=1,
        wrong_share=world.wrong,
    )


def is_refused_before(world: World, one: Round) -> bool:
    """The rule before: the step with the least DMPO loss, refused when that is above the live one's by an error."""
    targets = soft_target(torch.tensor(one.shares), torch.ones(world.votes, dtype=torch.float64), alpha=ALPHA)
    margins = torch.tensor(np.stack([one.live, *one.evaluations]))
    losses = dmpo(margins, targets.expand_as(margins)).numpy()
    chosen = losses[1 + losses[1:].mean(1).argmin()]
    difference, error, _ = clustered_mean(chosen - losses[0], np.ones(world.votes), world.prompts)
    return difference > error


def rates(world: World, case: Case, *, rounds: int, seed: int) -> tuple[float, float, float]:
    """Shares of rounds that are refused, that are called better, and that were refused before."""
    rng = np.random.default_rng([seed, world.votes, int(100 * world.wrong), world.per_prompt])
    refused = better = before = 0
    for _ in range(rounds):
        one = simulate(world, case, rng)
        outcome = judge_now(world, one).outcome
        refused += outcome is Verdict.WORSE
        better += outcome is Verdict.BETTER
        before += is_refused_before(world, one)
    return refused / rounds, better / rounds, before / rounds


def short_cell(case: Case, values: tuple[float, float, float]) -> str:
    """The error rate of a case, now and by the rule before."""
    refused, _, before = values if case.error == "refused" else (1 - values[0], 0.0, 1 - values[2])
    return f"{100 * refused:.0f} % ({100 * before:.0f} %)"


def worlds(arguments: argparse.Namespace) -> Iterator[World]:
    for votes, per_prompt, wrong in itertools.product(arguments.votes, arguments.per_prompt, arguments.wrong):
        yield World(votes, wrong, per_prompt, arguments.alike, arguments.shared)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--votes", nargs="+", type=int, default=[20, 50, 100, 200, 400])
    parser.add_argument("--wrong", nargs="+", type=float, default=[0.0, 0.1, 0.2, 0.3])
    parser.add_argument("--per-prompt", nargs="+", type=int, default=[2], help="held-out votes on a prompt")
    parser.add_argument("--alike", type=float, default=0.2, help="correlation of the errors on one prompt")
    parser.add_argument("--shared", type=float, default=0.3, help="correlation of the errors of the two versions")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows, short_rows = [], []
    for world in worlds(arguments):
        rates_by_case = [rates(world, case, rounds=arguments.rounds, seed=arguments.seed) for case in CASES]
        facts = [world.votes, world.per_prompt, f"{world.wrong:.0%}"]
        for case, values in zip(CASES, rates_by_case, strict=True):
            rows.append([*facts, case.name, *(f"{100 * value:.1f} %" for value in values)])
        short_rows.append(
            [*facts, *(short_cell(*one) for one in zip(CASES, rates_by_case, strict=True) if one[0].error)]
        )
    print(f"{arguments.rounds} rounds a row; in brackets: the rule before\n")
    world_header = ["held-out votes", "on a prompt", "wrong"]
    print_table([*world_header, *(f"{case.name}: {case.error}" for case in CASES if case.error)], short_rows)
    print_table([*world_header, "new version", "refused", "better", "refused before"], rows)


if __name__ == "__main__":
    main()

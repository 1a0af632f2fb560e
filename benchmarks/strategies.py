"""Votes needed for a win rate, by the strategy that chooses the pairs: each against random pairs, on the pocket model.

    python -m benchmarks.strategies [--out runs.jsonl] [--tastes large left] [--votes 24 48 96] [--seeds 0 1] [--quick]

A strategy chooses half of the pairs from a pool of the base model's; a simulated taste judges them and a round trains;
it chooses the other half knowing the votes and the trained adapter's margins, and one round over all of them trains
from the base model. The taste then judges 100 held-out pictures against the base model's. Strategies that ask for no
margins are spared the first training. The scorers are the five pixel measures. Runs that `--out` holds are not made
again; the table is over all that it holds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap

from benchmarks.few_votes import Pool, calibrated, done, errors_of, fill_references, measure, train, yardstick
from benchmarks.learning_lab import Lab, Pictures
from benchmarks.report import print_table
from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.diffusion.lora import attach, detach, load_state_in_place
from dmpo_app.domain import BASE_VERSION, Candidate, Fact
from dmpo_app.labeling.strategies import STRATEGIES
from dmpo_app.labeling.tastes import taste_named
from dmpo_app.scoring.measures import brightness, contrast, saturation, sharpness, warmth
from dmpo_app.settings import LabelingSettings, Settings
from dmpo_app.training.slots import Draw, evaluation_slots

NAMES = ("random", "coverage", "scorers", "uncertainty")
MEASURES = (warmth, brightness, contrast, saturation, sharpness)
RANDOM = "random"
GOALS = (70.0, 80.0, 90.0)


class Chooser:
    """Chooses pairs of the pool as one of the studio's strategies orders them, over the whole pool at once."""

    def __init__(self, pool: Pool, name: str, rng: random.Random) -> None:
        strategy = STRATEGIES[name](LabelingSettings())
        if strategy is None:
            raise ValueError(f"{name} is the store's own order, not a strategy that can be asked")
        self._pool, self._strategy, self._rng = pool, strategy, rng
        self._prompts = {prompt: number for number, prompt in enumerate(sorted({p.prompt for p in pool.pairs}))}
        differences = np.stack([measured(pool.pictures_a) - measured(pool.pictures_b) for measured in MEASURES], 1)
        self._scores = differences / np.sqrt(np.mean(differences**2, 0))

    @property
    def needs_margins(self) -> bool:
        return Fact.MARGIN in self._strategy.needs

    def choose(self, chosen: Sequence[int], count: int, margins: Mapping[int, float]) -> list[int]:
        """`count` more pair ids."""
        votes = Counter(self._pool.pairs[pair].prompt for pair in chosen)
        rest = [pair for pair in range(len(self._pool.pairs)) if pair not in set(chosen)]
        self._rng.shuffle(rest)  # among equals the order of the pool would be the same for every seed
        candidates = [
            Candidate(
                pair_id=pair,
                prompt_id=self._prompts[self._pool.pairs[pair].prompt],
                adapter_version=0,
                num_taken=0,
                margin=margins.get(pair),
                scores=tuple(map(float, self._scores[pair])),
                prompt_votes=votes[self._pool.pairs[pair].prompt],
            )
            for pair in rest
        ]
        return [one.pair_id for one in self._strategy.order(candidates, self._rng)[:count]]


def wins_of(pool: Pool, taste: str, ids: Sequence[int]) -> list[float]:
    """What the taste says of these pairs: 1 for image a, 0 for b, 0.5 for a tie."""
    score = taste_named(taste).scores
    margins = score(pool.pictures_a[list(ids)]) - score(pool.pictures_b[list(ids)])
    return [0.5 if margin == 0 else float(margin > 0) for margin in margins]


def margins_under(lab: Lab, pool: Pool, spec: Any, tensors: Any, work: Path) -> dict[int, float]:
    """u at beta = 1 of every pair of the pool, averaged over the slots that held-out votes are looked at in."""
    settings = calibrated(lab, pool, lab.settings.round, work)
    errors, _, _ = errors_of(lab, pool, len(pool.pairs), settings, work)
    slots, size = evaluation_slots(settings.slots_per_pair), settings.batch_pairs
    parameters = attach(lab.denoiser.module, spec, seed=0)
    found: dict[int, float] = {}
    try:
        load_state_in_place(parameters, tensors)
        with torch.no_grad():
            for start in range(0, len(pool.pairs), size):
                batch = range(start, min(start + size, len(pool.pairs)))
                by_slot = [errors.terms([Draw(pair, slot) for pair in batch]).margin(1.0) for slot in slots]
                found |= dict(zip(batch, map(float, torch.stack(by_slot).mean(0)), strict=True))
    finally:
        detach(lab.denoiser.module)
    return found


def run(lab: Lab, pool: Pool, facts: dict[str, Any], work: Path, before: Pictures) -> dict[str, Any]:
    """One strategy on one number of votes: the record of it."""
    settings, seed, half = lab.settings.round, facts["seed"], facts["votes"] // 2
    chooser = Chooser(pool, facts["strategy"], random.Random(seed))
    ids = chooser.choose([], half, {})
    margins: dict[int, float] = {}
    if chooser.needs_margins:
        wins = wins_of(pool, facts["taste"], ids)
        spec, tensors, _, _ = train(lab, pool, settings, ids, wins, seed, work)
        margins = margins_under(lab, pool, spec, tensors, work)
    ids += chooser.choose(ids, facts["votes"] - half, margins)
    ids.sort()
    wins = wins_of(pool, facts["taste"], ids)
    spec, tensors, seconds, training = train(lab, pool, settings, ids, wins, seed, work)
    lab.model.swap(1, AdapterWeights(spec=spec, tensors=tensors))
    record = {"run": facts, **measure(lab, facts["taste"], before, yardstick(lab, len(before), 1))}
    lab.model.swap(BASE_VERSION, None)
    return record | {"seconds": round(seconds, 1), "training": training}


def interval(values: Sequence[float], sign: str = "") -> str:
    """A bootstrap interval of the mean, 95 %; empty where there is too little to tell."""
    if len(values) < 3 or np.std(values) == 0:
        return ""
    found = bootstrap((np.asarray(values),), np.mean, rng=np.random.default_rng(0)).confidence_interval
    return f"{found.low:{sign}.1f} to {found.high:{sign}.1f}"


def votes_for(goal: float, curve: Sequence[tuple[int, float]]) -> str:
    """The votes at which a curve of (votes, win rate) first reaches `goal`, straight lines between its points."""
    if curve[0][1] >= goal:
        return f"<= {curve[0][0]}"
    for (fewer, low), (more, high) in itertools.pairwise(curve):
        if low < goal <= high:
            return f"{fewer + (more - fewer) * (goal - low) / (high - low):.0f}"
    return f"> {curve[-1][0]}"


def show(records: Sequence[Mapping[str, Any]]) -> None:
    """Win rates with what each has over random pairs of the same taste and seed, and the votes to reach the goals."""
    rates: dict[tuple[str, int], dict[tuple[str, int], float]] = defaultdict(dict)
    for record in records:
        facts = record["run"]
        place = (facts["strategy"], facts["votes"])
        rates[place][facts["taste"], facts["seed"]] = 100 * record["wins"] / record["pairs"]
    rows = []
    for (name, votes), found in sorted(rates.items(), key=lambda item: (item[0][1], NAMES.index(item[0][0]))):
        other = rates.get((RANDOM, votes), {})
        gains = [found[key] - other[key] for key in sorted(found.keys() & other.keys())] if name != RANDOM else []
        values = list(found.values())
        gain = f"{np.mean(gains):+.1f}" if gains else ""
        rows.append(
            [votes, name, len(values), f"{np.mean(values):.1f}", interval(values), gain, interval(gains, sign="+")]
        )
    print_table(["votes", "strategy", "runs", "wins, %", "95 %", "over random, points", "95 %"], rows)
    curves = {
        name: sorted(
            (votes, float(np.mean(list(found.values())))) for (other, votes), found in rates.items() if other == name
        )
        for name in NAMES
        if any(other == name for other, _ in rates)
    }
    reached = [[name, *(votes_for(goal, curve) for goal in GOALS)] for name, curve in curves.items()]
    print_table(["votes to reach", *(f"{goal:.0f} %" for goal in GOALS)], reached)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path(tempfile.gettempdir()) / "dmpo-few-votes"
    parser.add_argument("--out", type=Path, default=folder / "strategies.jsonl")
    parser.add_argument("--strategies", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--tastes", nargs="+", default=["large", "left"])
    parser.add_argument("--votes", nargs="+", type=int, default=[24, 48, 96])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--pairs", type=int, default=100, help="pictures to compare on")
    parser.add_argument("--pool", type=int, default=360)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=folder)
    parser.add_argument("--quick", action="store_true", help="one run a strategy: 16 votes, a pool of 32, 10 steps")
    arguments = parser.parse_args()
    settings = Settings()
    if arguments.quick:
        arguments.tastes, arguments.votes, arguments.seeds, arguments.pool, arguments.pairs = (
            ["large"],
            [16],
            [0],
            32,
            16,
        )
        short = settings.round.model_copy(update={"num_steps": 10, "evaluate_every": 5})
        settings = settings.model_copy(update={"round": short})
        arguments.out = arguments.out.with_suffix(".quick.jsonl")
    torch.set_num_threads(arguments.threads)
    axes = itertools.product(arguments.seeds, arguments.tastes, arguments.votes, arguments.strategies)
    fixed = {"pool": arguments.pool, "pairs": arguments.pairs}
    grid = [
        {"strategy": name, "taste": taste, "votes": votes, "seed": seed, **fixed} for seed, taste, votes, name in axes
    ]
    wanted = [facts for facts in grid if facts not in done(arguments.out)]
    if wanted:
        lab = Lab(settings, arguments.work)
        pool = Pool(lab, arguments.pool)
        fill_references(lab, pool, lab.settings.round, arguments.work)
        before = lab.kept_pictures(
            "few-votes-yardstick", arguments.pairs, lambda: yardstick(lab, arguments.pairs, BASE_VERSION)
        )
    for facts in wanted:
        record = run(lab, pool, facts, arguments.work, before)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(facts), f"{record['wins'] / record['pairs']:.1%}", f"{record['seconds']:.0f} s", flush=True)
    show([json.loads(line) for line in arguments.out.read_text(encoding="utf-8").splitlines()])


if __name__ == "__main__":
    main()

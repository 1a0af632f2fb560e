"""Strategies compared: the win rate that a number of votes buys, by the strategy that chose the pairs.

    python -m benchmarks.strategies --out runs.jsonl [--strategies random coverage scorers uncertainty]
                                    [--tastes large] [--votes 24 48 96] [--seeds 0 1 2 3 4]

Votes come in two halves. The first half of the pairs is chosen before anything was trained, the second under a model
that was trained on the first, as rounds do it. A strategy chooses with the studio's own code from what the studio would
know: the prompts judged so far, automatic scorers that need no weights (sharpness, contrast, saturation, whether the
image shows its prompt), the margins of the model trained on the first half. The taste votes, without mistakes, one
round trains on all of it (the real trainer, as in `benchmarks.few_votes`), and the taste judges held-out images. The
strategies of one seed share the pool and the order in which the store would offer it. Runs that `--out` holds are not
made again; the table is over all that it holds.
"""

import argparse
import io
import itertools
import json
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from scipy.stats import bootstrap

from benchmarks.few_votes import Pool, done, errors_of, fill_references, measure, train, yardstick
from benchmarks.learning_lab import Lab
from benchmarks.report import print_table
from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.domain.lineage import BASE_VERSION
from dmpo_app.domain.vote import Candidate, Strategy
from dmpo_app.labeling.strategies import STRATEGIES
from dmpo_app.labeling.tastes import get_taste
from dmpo_app.scoring.registry import build_scorer
from dmpo_app.settings import LabelingSettings, Settings
from dmpo_app.training.reference.prefetch import policy_margins

SCORERS = ("sharpness", "contrast", "saturation", "pocket-fidelity")
A_REQUEST = 4
"""Pairs that a browser asks for at a time."""


def scores_of(pool: Pool) -> list[tuple[float, ...]]:
    """By pair, what each scorer finds better in image a, in its standard deviations over the pool."""
    prompts = [pair.prompt for pair in pool.pairs]
    columns = []
    for name in SCORERS:
        scorer = build_scorer(name, source=None, device="cpu", batch_size=32)
        a, b = (
            scorer.score([PIL.Image.open(io.BytesIO(png)) for png in side], prompts)
            for side in ([p.image_a.png for p in pool.pairs], [p.image_b.png for p in pool.pairs])
        )
        difference = (a - b).astype(np.float64)
        columns.append(difference / difference.std())
    return [tuple(row) for row in np.stack(columns, axis=1).tolist()]


def choose(
    strategy: Strategy | None, candidates: Sequence[Candidate], chosen: Sequence[int], count: int, rng: random.Random
) -> list[int]:
    """`count` more pairs, a request at a time; `chosen` are judged already."""
    taken = list(chosen)
    prompt_of = {one.pair_id: one.prompt_id for one in candidates}
    while len(taken) < len(chosen) + count:
        judged = Counter(prompt_of[pair] for pair in taken)
        seen = set(taken)
        left = [replace(c, prompt_votes=judged[c.prompt_id]) for c in candidates if c.pair_id not in seen]
        order = left if strategy is None else strategy.order(left, rng)
        taken += [one.pair_id for one in order[: min(A_REQUEST, len(chosen) + count - len(taken))]]
    return taken[len(chosen) :]


def candidates_of(pool: Pool, scores: Sequence[tuple[float, ...]], seed: int) -> list[Candidate]:
    """The pool in the order in which the store offers it: that of its pairs, drawn by `seed`."""
    prompts = {prompt: index for index, prompt in enumerate(dict.fromkeys(pair.prompt for pair in pool.pairs))}
    order = random.Random(seed).sample(range(len(pool.pairs)), len(pool.pairs))
    return [Candidate(pair, prompts[pool.pairs[pair].prompt], BASE_VERSION, 0, None, scores[pair]) for pair in order]


def votes_on(pool: Pool, taste: str, ids: Sequence[int]) -> list[float]:
    score = get_taste(taste).scores
    margins = score(pool.images_a[list(ids)]) - score(pool.images_b[list(ids)])
    return [0.5 if margin == 0 else float(margin > 0) for margin in margins]


def run(
    lab: Lab, pool: Pool, scores: Sequence[tuple[float, ...]], facts: dict[str, Any], work: Path, before: Any
) -> dict[str, Any]:
    settings, seed, taste = lab.settings.round, facts["seed"], facts["taste"]
    strategy = STRATEGIES[facts["strategy"]](LabelingSettings())
    rng = random.Random(f"{facts['strategy']} {seed}")
    candidates = candidates_of(pool, scores, seed)
    ids = choose(strategy, candidates, [], facts["votes"] // 2, rng)
    if facts["strategy"] == "uncertainty":  # the only one that asks the model between the halves
        spec, tensors, _, _ = train(lab, pool, settings, sorted(ids), votes_on(pool, taste, sorted(ids)), seed, work)
        errors, _, _ = errors_of(lab, pool, len(pool.pairs), settings, work)
        margins = policy_margins(lab.denoiser, errors, AdapterWeights(spec=spec, tensors=tensors), settings)
        candidates = [replace(one, margin=margins[one.pair_id]) for one in candidates]
    ids = sorted(ids + choose(strategy, candidates, ids, facts["votes"] - len(ids), rng))
    spec, tensors, seconds, training = train(lab, pool, settings, ids, votes_on(pool, taste, ids), seed, work)
    lab.model.swap(1, AdapterWeights(spec=spec, tensors=tensors))
    record = {"run": facts, **measure(lab, taste, before, yardstick(lab, len(before), 1))}
    lab.model.swap(BASE_VERSION, None)
    prompts = len({pool.pairs[pair].prompt for pair in ids})
    return record | {"prompts": prompts, "seconds": round(seconds, 1), "training": training}


def show(records: Sequence[Mapping[str, Any]]) -> None:
    """A row a strategy and number of votes: win rate, and what it has over random pairs of the same seeds."""
    rates: dict[tuple[str, int, str], dict[int, float]] = defaultdict(dict)
    for record in records:
        facts = record["run"]
        key = (facts["taste"], facts["votes"], facts["strategy"])
        rates[key][facts["seed"]] = 100 * record["wins"] / record["pairs"]
    rows = []
    for (taste, votes, strategy), by_seed in sorted(rates.items(), key=lambda item: item[0][:2]):
        found = np.array(list(by_seed.values()))
        alike = rates.get((taste, votes, "random"), {})
        gains = np.array([rate - alike[seed] for seed, rate in by_seed.items() if seed in alike])
        columns = [taste, votes, strategy, len(found), f"{found.mean():.1f} %", interval(found)]
        if strategy == "random" or not len(gains):
            rows.append([*columns, "", ""])
        else:
            rows.append([*columns, f"{gains.mean():+.1f}", interval(gains)])
    print_table(["taste", "votes", "strategy", "seeds", "wins over base", "95 %", "over random, points", "95 %"], rows)


def interval(values: Any) -> str:
    """Of the mean: a bootstrap over seeds."""
    if len(values) < 3 or values.std() == 0:
        return ""
    found = bootstrap((values,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    return f"{found.low:.1f} to {found.high:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path(tempfile.gettempdir()) / "dmpo-few-votes"
    parser.add_argument("--out", type=Path, default=folder / "strategies.jsonl")
    names = ["random", "coverage", "scorers", "uncertainty"]
    parser.add_argument("--strategies", nargs="+", default=names, choices=sorted(STRATEGIES))
    parser.add_argument("--tastes", nargs="+", default=["large"])
    parser.add_argument("--votes", nargs="+", type=int, default=[24, 48, 96])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--pairs", type=int, default=100, help="images to compare on")
    parser.add_argument("--pool", type=int, default=360)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=folder)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    axes = (arguments.seeds, arguments.tastes, arguments.votes, arguments.strategies)
    wanted = [
        {"strategy": strategy, "taste": taste, "votes": votes, "seed": seed, "pool": arguments.pool}
        for seed, taste, votes, strategy in itertools.product(*axes)
    ]
    wanted = [facts for facts in wanted if facts not in done(arguments.out)]
    if wanted:
        lab = Lab(Settings(), arguments.work)
        pool = Pool(lab, arguments.pool)
        fill_references(lab, pool, lab.settings.round, arguments.work)
        scores = scores_of(pool)
        before = lab.kept_images(
            "few-votes-yardstick", arguments.pairs, lambda: yardstick(lab, arguments.pairs, BASE_VERSION)
        )
    for facts in wanted:
        record = run(lab, pool, scores, facts, arguments.work, before)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(facts), f"{record['wins'] / record['pairs']:.1%}", f"{record['seconds']:.0f} s", flush=True)
    show([json.loads(line) for line in arguments.out.read_text(encoding="utf-8").splitlines()])


if __name__ == "__main__":
    main()

"""Crowds with random clickers and hostile annotators: what weighing annotators by reliability is worth.

    python -m benchmarks.crowds --sybils    shares of weight that crowds of sessions get; trains nothing
    python -m benchmarks.crowds --out runs.jsonl [--tastes warm bright large left] [--seeds 0 1 2 3 4] [--votes 288]
                                [--arms alike dawid_skene capped both honest] [--random 0.1] [--hostile 0.05]

A crowd of unequally busy annotators judges pairs of the base model by a taste, about three of them each pair. Honest
ones are mistaken in a tenth of their votes, some click at random, some always say the opposite. One round trains on
the votes as each arm weighs them (the real trainer, as in `benchmarks.few_votes`), then base and adapted model draw the
same held-out prompts with the same seeds, and the taste itself is the judge. `honest` knows who is who and leaves the
others out. Runs that `--out` holds are not made again; the table is over all that it holds.
"""

import argparse
import itertools
import json
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap

from benchmarks import sybils
from benchmarks.few_votes import Pool, done, fill_references, measure, train, yardstick
from benchmarks.learning import with_overrides
from benchmarks.learning_lab import Images, Lab
from benchmarks.report import print_table
from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.domain.lineage import BASE_VERSION
from dmpo_app.domain.vote import Outcome
from dmpo_app.labeling.quality import VoteWeighing
from dmpo_app.labeling.tastes import get_taste
from dmpo_app.settings import RoundSettings, Settings
from dmpo_app.training.data.dataset import PairDataset, is_held_out

MISTAKEN = 0.1
"""Share of an honest annotator's votes that go the other way."""
SHARE = 0.05
ARMS = {
    "alike": VoteWeighing(),
    "dawid_skene": VoteWeighing("dawid_skene"),
    "capped": VoteWeighing("off", SHARE),
    "both": VoteWeighing("dawid_skene", SHARE),
}
HONEST = "honest"
_WINS = {Outcome.A: 1.0, Outcome.B: 0.0, Outcome.TIE: 0.5}


@dataclass(frozen=True, slots=True)
class CrowdVote:
    annotator_id: int
    pair_id: int
    outcome: Outcome


class CrowdPool(Pool):
    """A pool whose pairs have any number of weighted votes: `counts` by pair, 1 where there is none."""

    def __init__(self, lab: Lab, size: int) -> None:
        super().__init__(lab, size)
        self.counts: Mapping[int, float] = {}

    def dataset(self, ids: Sequence[int], wins_a: Sequence[float], settings: RoundSettings) -> PairDataset:
        counts = [self.counts.get(pair, 1.0) for pair in ids]
        return self._memory.dataset(ids, wins_a, alpha=settings.alpha, num_votes=counts)


def kinds_of(facts: Mapping[str, Any]) -> list[str]:
    """The kind of each annotator; who is busy does not depend on it."""
    count = facts["annotators"]
    clickers, hostile = round(facts["random"] * count), round(facts["hostile"] * count)
    kinds = ["random"] * clickers + ["hostile"] * hostile + [HONEST] * (count - clickers - hostile)
    random.Random(facts["seed"]).shuffle(kinds)
    return kinds


def crowd_votes(pool: Pool, facts: Mapping[str, Any]) -> list[CrowdVote]:
    """Votes on `votes / overlap` pairs, each by `overlap` annotators; the k-th is about 1 / k as busy as the first."""
    rng, kinds = np.random.default_rng(facts["seed"]), kinds_of(facts)
    busy = 1 / np.arange(1.0, len(kinds) + 1)
    pairs = np.sort(rng.choice(len(pool.pairs), facts["votes"] // facts["overlap"], replace=False))
    score = get_taste(facts["taste"]).scores
    margins = score(pool.images_a[pairs]) - score(pool.images_b[pairs])
    votes = []
    for pair, margin in zip(pairs, margins, strict=True):
        for annotator in rng.choice(len(kinds), facts["overlap"], replace=False, p=busy / busy.sum()):
            turned = rng.random() < {HONEST: MISTAKEN, "random": 0.5, "hostile": 1.0}[kinds[annotator]]
            outcome = Outcome.TIE if margin == 0 else Outcome.A if (margin > 0) != turned else Outcome.B
            votes.append(CrowdVote(int(annotator), int(pair), outcome))
    return votes


def weights_of(pool: Pool, votes: Sequence[CrowdVote], facts: Mapping[str, Any], share: float) -> dict[int, float]:
    """By annotator, found as a round finds them: from the votes that are trained on."""
    if facts["arm"] == HONEST:
        return {annotator: float(kind == HONEST) for annotator, kind in enumerate(kinds_of(facts))}
    prompts = pool.pairs
    trained_on = [v for v in votes if not is_held_out(prompts[v.pair_id].prompt, share=share, seed=facts["seed"])]
    found = ARMS[facts["arm"]].weights(trained_on)
    return {annotator: found.weight_for(annotator) for annotator in range(facts["annotators"])}


def gathered(votes: Sequence[CrowdVote], weights: Mapping[int, float]) -> tuple[dict[int, float], dict[int, float]]:
    """(wins of image a, votes) by pair, weighted; pairs of which nothing is left are left out."""
    wins: dict[int, float] = defaultdict(float)
    counts: dict[int, float] = defaultdict(float)
    for vote in votes:
        counts[vote.pair_id] += weights[vote.annotator_id]
        wins[vote.pair_id] += weights[vote.annotator_id] * _WINS[vote.outcome]
    kept = {pair: count for pair, count in counts.items() if count > 0}
    return {pair: wins[pair] for pair in kept}, kept


def run(lab: Lab, pool: CrowdPool, facts: dict[str, Any], work: Path, before: Images) -> dict[str, Any]:
    """One arm on one crowd: the record of it."""
    settings = lab.settings.round
    votes = crowd_votes(pool, facts)
    weights = weights_of(pool, votes, facts, settings.held_out_share)
    wins, pool.counts = gathered(votes, weights)
    spec, tensors, seconds, training = train(lab, pool, settings, list(wins), list(wins.values()), facts["seed"], work)
    lab.model.swap(1, AdapterWeights(spec=spec, tensors=tensors))
    record = {"run": facts, **measure(lab, facts["taste"], before, yardstick(lab, len(before), 1))}
    lab.model.swap(BASE_VERSION, None)
    pool.counts = {}
    kinds = kinds_of(facts)
    given = Counter(kinds[vote.annotator_id] for vote in votes)
    weighed: dict[str, float] = defaultdict(float)
    for vote in votes:
        weighed[kinds[vote.annotator_id]] += weights[vote.annotator_id]
    total = sum(weighed.values())
    record["share_given"] = {kind: count / len(votes) for kind, count in given.items()}
    record["share_weighed"] = {kind: mass / total for kind, mass in weighed.items()}
    return record | {"seconds": round(seconds, 1), "training": training}


def show(records: Sequence[Mapping[str, Any]]) -> None:
    """A row an arm: win rate, and what it has over weighing all alike on the same crowds, with a bootstrap interval."""
    rates: dict[str, dict[str, float]] = defaultdict(dict)
    bad: dict[str, list[float]] = defaultdict(list)
    for record in records:
        facts = dict(record["run"])
        arm = facts.pop("arm")
        rates[arm][json.dumps(facts, sort_keys=True)] = 100 * record["wins"] / record["pairs"]
        bad[arm].append(100 * (1 - record["share_weighed"].get(HONEST, 0.0)))
    rows = []
    for arm in (arm for arm in (*ARMS, HONEST) if arm in rates):
        shared = sorted(rates[arm].keys() & rates["alike"].keys())
        gains = np.array([rates[arm][crowd] - rates["alike"][crowd] for crowd in shared])
        interval = ""
        if len(gains) > 2 and gains.std() > 0:
            found = bootstrap((gains,), np.mean, rng=np.random.default_rng(0)).confidence_interval
            interval = f"{found.low:+.1f} to {found.high:+.1f}"
        gain = f"{gains.mean():+.1f}" if len(gains) else ""
        mean, least = np.mean(list(rates[arm].values())), min(rates[arm].values())
        rows.append(
            [arm, len(rates[arm]), f"{np.mean(bad[arm]):.0f} %", f"{mean:.1f} %", f"{least:.0f} %", gain, interval]
        )
    print_table(["votes count", "runs", "weight not honest", "wins over base", "least", "gain, points", "95 %"], rows)


def grid(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every run asked for, as the facts that name it; the arms of one crowd follow each other."""
    fixed = {
        name: getattr(arguments, name)
        for name in ("votes", "annotators", "overlap", "random", "hostile", "pool", "pairs")
    }
    return [
        {"arm": arm, "taste": taste, "seed": seed, **fixed, "set": sorted(arguments.overrides)}
        for seed, taste, arm in itertools.product(arguments.seeds, arguments.tastes, arguments.arms)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path(tempfile.gettempdir()) / "dmpo-few-votes"
    parser.add_argument("--out", type=Path, default=folder / "crowds.jsonl")
    parser.add_argument("--arms", nargs="+", default=[*ARMS, HONEST], choices=[*ARMS, HONEST])
    parser.add_argument("--tastes", nargs="+", default=["warm", "bright", "large", "left"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--votes", type=int, default=288)
    parser.add_argument("--overlap", type=int, default=3, help="annotators that judge a pair")
    parser.add_argument("--annotators", type=int, default=40)
    parser.add_argument("--random", type=float, default=0.1, help="share of annotators that click at random")
    parser.add_argument("--hostile", type=float, default=0.05, help="share that always says the opposite")
    parser.add_argument("--pairs", type=int, default=100, help="images to compare on")
    parser.add_argument("--pool", type=int, default=360)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=folder)
    parser.add_argument("--set", nargs="+", default=[], dest="overrides", metavar="GROUP.NAME=VALUE")
    parser.add_argument("--sybils", action="store_true", help="only the arithmetic of crowds of sessions")
    arguments = parser.parse_args()
    if arguments.sybils:
        sybils.show()
        return
    torch.set_num_threads(arguments.threads)
    wanted = [facts for facts in grid(arguments) if facts not in done(arguments.out)]
    if wanted:
        lab = Lab(with_overrides(Settings(), arguments.overrides), arguments.work)
        pool = CrowdPool(lab, arguments.pool)
        fill_references(lab, pool, lab.settings.round, arguments.work)
        before = lab.kept_images(
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

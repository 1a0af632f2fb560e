"""Does it learn? Simulated tastes vote, rounds train, and the adapted model is held against the base model.

    python -m benchmarks.learning [--tastes warm bright large left] [--seeds 0 1 2] [--wrong 0.2]
                                  [--set round.beta=1000 round.rank=4]

Everything but the web server is the real thing: votes go through the store, rounds through the scheduler, adapters
through the files into the live model. A run is: `--votes` votes on pairs of the base model, a round, as many votes on
pairs that the new version makes, a round, and so on; then both models draw the same held-out prompts with the same
seeds and the taste itself is the judge. `--reuse-pairs` takes the later rounds' pairs from the base model's too, which
is quicker.
"""

import argparse
import json
import math
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learning_lab import Images, Lab, pixels
from benchmarks.report import machine, print_table
from dmpo_app.diffusion.adapter_files import read_adapter
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Choice
from dmpo_app.labeling.tastes import Taste, get_taste
from dmpo_app.pocket.classifiers import AttributeClassifier
from dmpo_app.pocket.language import parse
from dmpo_app.settings import Settings, shipped_data
from dmpo_app.store import Store
from dmpo_app.store.store import utc_now
from dmpo_app.training.rounds.scheduler import RoundScheduler, Tick

CLASSIFIER = shipped_data("classifiers/attributes.safetensors")
KINDS = ("subject", "setting")


@dataclass(frozen=True, slots=True)
class Run:
    """One taste with one seed. `fidelity` and its base: share of images with the prompted subject, setting."""

    taste: str
    seed: int
    win_rate: float
    num_pairs: int
    fidelity: dict[str, float]
    base_fidelity: dict[str, float]
    round_seconds: list[float]
    rounds: list[dict[str, Any]]

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, Wilson's; a tie counts as half a win."""
        n, p, z = self.num_pairs, self.win_rate, 1.96
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return middle - half, middle + half


def simulate(lab: Lab, taste: Taste, seed: int, arguments: argparse.Namespace) -> Run:
    """Vote and train in a home of its own, then compare."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder)) as store:
        base = lab.register(store)
        pairs = lab.base_pairs(arguments.pool)
        rng.shuffle(pairs)
        seconds = []
        worker = RoundScheduler(
            store,
            base,
            lab.settings.model_copy(update={"home": Path(folder), "min_votes": arguments.votes}),
            lab.denoiser,
            owner="benchmark",
            now=utc_now,
        )
        for number in range(arguments.rounds):
            if number == 0 or arguments.reuse_pairs:
                fresh, pairs = pairs[: arguments.votes], pairs[arguments.votes :]
            else:
                prompts = rng.sample(lab.train_prompts, arguments.votes)
                fresh = lab.render_pairs(prompts, lab.model.version, rng)
            store.pairs.add_many(base, fresh)
            vote(store, base, taste, arguments.votes, wrong=arguments.wrong, rng=rng)
            started = time.perf_counter()
            if (tick := worker.tick()) is not Tick.TRAINED:
                raise RuntimeError(f"the round was {tick}: {store.rounds.last(base)}")
            seconds.append(time.perf_counter() - started)
            hold_live(lab, store, base)
        rounds: list[dict[str, Any]] = [
            {"status": state.status, "margin": state.margin, "accuracy": state.accuracy}
            for state in store.rounds.list(base)
        ]
        for adapter in store.adapters.list(base):
            rounds[adapter.round_id - 1]["metrics"] = dict(adapter.metrics)
        return compare(lab, taste, seed, arguments.pairs, seconds, rounds)


def vote(store: Store, base: BaseModelRef, taste: Taste, count: int, *, wrong: float, rng: random.Random) -> None:
    """`count` votes by one annotator with this taste; a share is the other way round on purpose."""
    annotator = store.annotators.ensure(taste.name)
    while count:
        issued = store.assignments.issue(
            base, annotator.id, min(count, 8), rng=rng, lifetime=timedelta(hours=1)
        ).result()
        if not issued:
            raise RuntimeError("no pair is left to vote on; raise --pool")
        for assignment in issued:
            sides = [store.images.get(image) for image in (assignment.left_image_id, assignment.right_image_id)]
            left, right = taste.scores(np.stack([pixels(store.files.read_image(image.sha256)) for image in sides]))
            prefers_left = bool(left > right) != (rng.random() < wrong)
            choice = Choice.TIE if left == right else Choice.LEFT if prefers_left else Choice.RIGHT
            store.votes.record(assignment.id, annotator.id, choice, 800)
            count -= 1


def hold_live(lab: Lab, store: Store, base: BaseModelRef) -> None:
    """Swap the live version in, as the render thread does."""
    version = store.adapters.live_version(base)
    if version == 0:
        lab.model.swap(0, None)
        return
    adapter = store.adapters.get(base, version)
    lab.model.swap(version, read_adapter(adapter.folder, adapter.sha256))


def compare(
    lab: Lab, taste: Taste, seed: int, count: int, round_seconds: list[float], rounds: list[dict[str, Any]]
) -> Run:
    before, after = lab.base_yardstick(count), lab.yardstick(count, lab.model.version)
    old, new = taste.scores(before), taste.scores(after)
    return Run(
        taste=taste.name,
        seed=seed,
        win_rate=float((new > old).mean() + 0.5 * (new == old).mean()),
        num_pairs=count,
        fidelity=fidelity_of(after, lab.yardstick_prompts(count)),
        base_fidelity=fidelity_of(before, lab.yardstick_prompts(count)),
        round_seconds=round_seconds,
        rounds=rounds,
    )


def fidelity_of(images: Images, prompts: Sequence[str]) -> dict[str, float]:
    """Share of images whose subject and setting are what the prompt asks for."""
    if not CLASSIFIER.exists():
        return {}
    reading = AttributeClassifier.load(CLASSIFIER).predict(images)
    wishes = [parse(prompt) for prompt in prompts]
    shares = {}
    for kind in KINDS:
        right = [
            str(seen) == getattr(wish, kind)
            for seen, wish in zip(getattr(reading, kind), wishes, strict=True)
            if getattr(wish, kind) is not None
        ]
        shares[kind] = float(np.mean(right))
    return shares


def rows_of(runs: Sequence[Run]) -> list[list[str]]:
    rows = []
    for run in runs:
        low, high = run.interval
        changes = [f"{(run.fidelity[kind] - run.base_fidelity[kind]) * 100:+.1f}" for kind in run.fidelity]
        rows.append(
            [run.taste, str(run.seed), f"{run.win_rate:.1%}", f"{low:.1%} to {high:.1%}"]
            + (changes or ["", ""])
            + [" + ".join(f"{seconds:.0f}" for seconds in run.round_seconds)]
        )
    return rows


def with_overrides(settings: Settings, overrides: Sequence[str]) -> Settings:
    """`round.beta=1000` and the like, checked like any setting."""
    tree = settings.model_dump(mode="json")
    for override in overrides:
        name, value = override.split("=", 1)
        *groups, leaf = name.split(".")
        node = tree
        for group in groups:
            node = node[group]
        node[leaf] = json.loads(value) if value[:1] in "0123456789-{[tfn" else value
    return Settings.model_validate(tree)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tastes", nargs="+", default=["warm", "bright", "large", "left"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--wrong", type=float, default=0.0, help="share of votes that are the other way round")
    parser.add_argument("--votes", type=int, default=48, help="votes before each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=200, help="held-out prompt x seed pairs to compare on")
    parser.add_argument("--pool", type=int, default=192, help="pairs of the base model that are kept")
    parser.add_argument("--reuse-pairs", action="store_true", help="vote on pairs of the base model in every round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default=Settings().base_model)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dmpo-learning")
    parser.add_argument("--set", nargs="+", default=[], dest="overrides", metavar="GROUP.NAME=VALUE")
    parser.add_argument("--json", type=Path, help="append every run to this file, one JSON a line")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lab = Lab(with_overrides(Settings(base_model=arguments.model), arguments.overrides), arguments.work)
    runs = []
    for name in arguments.tastes:
        for seed in arguments.seeds:
            runs.append(simulate(lab, get_taste(name), seed, arguments))
            print(f"{name}, seed {seed}: {runs[-1].win_rate:.1%}", flush=True)
            if arguments.json:
                record = {"set": arguments.overrides, "wrong": arguments.wrong, **asdict(runs[-1])}
                with arguments.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
    rates = [run.win_rate for run in runs]
    print(f"\n{machine()}; {arguments.rounds} rounds of {arguments.votes} votes, {arguments.wrong:.0%} wrong\n")
    print_table(
        ["taste", "seed", "wins over base", "95 %", "subject, points", "setting, points", "rounds, s"], rows_of(runs)
    )
    print(f"mean {np.mean(rates):.1%}, least {min(rates):.1%}, below half: {sum(rate < 0.5 for rate in rates)}")


if __name__ == "__main__":
    main()

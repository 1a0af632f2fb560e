"""Rounds trained on votes that are turned round, and an honest person's duels that are to find them out.

    python -m benchmarks.turned_rounds --out turned-rounds.jsonl [--rounds 50] [--duels 60]

Every round learns the opposite of a taste, from votes that are all the other way round, the held-out ones too: no gate
by held-out votes can see it. Then a person of that taste judges duels between the new version and the base, which was
live before, one after another, and the project's test is asked after each, as the studio does. Every round is one line
of `--out` with all its judgements; rounds that are there already are not made again, and `--report` counts those that
would have stayed live, also if one judgement in ten is wrong.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.few_votes import Pool, done, fill_references, train, votes_of
from benchmarks.learning_lab import FIRST_SEED, Images, Lab
from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.diffusion.live_model import Shot
from dmpo_app.domain.judging import Judgement, Verdict
from dmpo_app.domain.lineage import BASE_VERSION
from dmpo_app.exchange.importing.starter_pairs import read_starter_pairs
from dmpo_app.judging.duel_test import compare_by_duels
from dmpo_app.labeling.tastes import get_taste
from dmpo_app.server.wiring import read_prompts
from dmpo_app.settings import Settings

TASTES = ("warm", "bright", "large", "left", "vivid")
BATCH = 8
CANDIDATE = 1
VOTES = 64
"""On the starter pairs."""
SAMPLING_STEPS = 10
"""Of the images that are judged."""


def duel_images(lab: Lab, count: int, version: int) -> Images:
    """One image of each of `count` held-out prompts, with seeds of their own, under the version the model holds."""
    prompts = [lab.held_out_prompts[i % len(lab.held_out_prompts)] for i in range(count)]
    shots = [Shot(prompt, FIRST_SEED + 10_000 + i, version) for i, prompt in enumerate(prompts)]
    images = [
        np.asarray(sample.image.convert("RGB"))
        for start in range(0, count, BATCH)
        for sample in lab.model.render(shots[start : start + BATCH])
    ]
    return np.stack(images)


def judge(taste: str, candidate: Images, base: Images) -> list[float]:
    """An honest person's scores of the candidate's images against the base's: 1, 0, or 0.5 where they are alike."""
    score = get_taste(taste).scores
    differences = score(candidate) - score(base)
    return [0.5 if difference == 0 else float(difference > 0) for difference in differences]


def run(lab: Lab, pool: Pool, facts: dict[str, Any], base_images: Images, work: Path) -> dict[str, Any]:
    """One round on turned votes, and the judgements of its version against the base."""
    ids, wins = votes_of(pool, facts["taste"], facts["votes"], 1.0, facts["seed"])
    spec, tensors, seconds, training = train(lab, pool, lab.settings.round, ids, wins, facts["seed"], work)
    lab.model.swap(CANDIDATE, AdapterWeights(spec=spec, tensors=tensors))
    images = duel_images(lab, len(base_images), CANDIDATE)
    lab.model.swap(BASE_VERSION, None)
    scores = judge(facts["taste"], images, base_images)
    return {"run": facts, "scores": scores, "seconds": round(seconds, 1), "step": training["step"]}


def found_out_after(prompts: Sequence[str], scores: Sequence[float], slips: float, seed: int) -> int | None:
    """The number of duels after which the test says `worse`; None while it never does."""
    rng = random.Random(seed)
    judgements: list[Judgement] = []
    for number, score in enumerate(scores):
        judged = 1 - score if rng.random() < slips else score
        judgements.append(Judgement(1, prompts[number % len(prompts)], CANDIDATE, BASE_VERSION, judged))
        test = compare_by_duels(judgements, candidate=CANDIDATE, other=BASE_VERSION)
        if test.verdict is Verdict.WORSE:
            return number + 1
    return None


def report(path: Path, prompts: Sequence[str]) -> None:
    """Count the rounds that stay live, without slips and with one judgement in ten wrong."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for slips in (0.0, 0.1):
        ends = [found_out_after(prompts, row["scores"], slips, row["run"]["seed"]) for row in rows]
        known = [end for end in ends if end is not None]
        middle = f"after {np.median(known):.0f} duels (median), at most {max(known)}" if known else "never"
        print(f"slips {slips:.0%}: {len(ends) - len(known)} of {len(ends)} stay live; found out {middle}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--duels", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--share", default="0/1", help="I/N: every N-th round from the I-th on")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dmpo-step-choice")
    parser.add_argument("--report", action="store_true", help="no round is made; those of --out are counted")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = Settings()
    if arguments.report:
        report(arguments.out, read_prompts(settings.pool.held_out_prompts))
        return
    quick: dict[str, Any] = {"round": settings.round.model_copy(update={"health_images": 0})}
    quick["render"] = settings.render.model_copy(update={"num_steps": SAMPLING_STEPS})
    lab = Lab(settings.model_copy(update=quick), arguments.work)
    pool = Pool(lab, VOTES, read_starter_pairs(settings.pool.starter_pairs).pairs)
    fill_references(lab, pool, lab.settings.round, arguments.work)
    base_images = lab.kept_images("duels", arguments.duels, lambda: duel_images(lab, arguments.duels, BASE_VERSION))
    index, count = map(int, arguments.share.split("/"))
    for number in range(index, arguments.rounds, count):
        facts = {"taste": TASTES[number % len(TASTES)], "seed": 100 + number, "votes": VOTES, "duels": arguments.duels}
        if facts in done(arguments.out):
            continue
        record = run(lab, pool, facts, base_images, arguments.work)
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(facts), f"{np.mean(record['scores']):.0%} prefer it, {record['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()

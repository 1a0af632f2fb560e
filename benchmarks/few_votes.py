"""One round on few and partly wrong votes: objectives and settings against each other, on the pocket model.

    python -m benchmarks.few_votes --out runs.jsonl [--objectives dmpo dpo] [--tastes warm left] [--votes 96]
                                   [--wrong 0 0.2] [--seeds 0 1 2] [--set round.num_steps=160]

A simulated taste votes on pairs of the base model, some votes are the other way round, one round trains (the real
trainer, without the database around it), and base and adapted model draw the same held-out prompts with the same seeds:
the taste itself is the judge. Prompt fidelity and diversity between seeds are measured on the same images. Every run
is one line of `--out`; runs that are there already are not made again, so several processes can share the work
(`--share 0/2`, `--share 1/2`). `benchmarks.few_votes_report` makes tables of the file.
"""

import argparse
import itertools
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learning import fidelity_of, with_overrides
from benchmarks.learning_lab import FIRST_SEED, Images, Lab, pixels
from benchmarks.memory_files import MemoryPairs
from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.diffusion.live_model import Shot
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.domain.lineage import BASE_VERSION, NewPair
from dmpo_app.labeling.tastes import get_taste
from dmpo_app.settings import RoundSettings, Settings
from dmpo_app.training.data.dataset import PairDataset, is_held_out
from dmpo_app.training.loop.trainer import RoundTrainer
from dmpo_app.training.reference.calibration import calibrate_betas
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.reference_cache import ReferenceCache, numerics_key
from dmpo_app.training.rounds.round_plan import RoundPlan

SEEDS_PER_PROMPT = 2
"""Of a yardstick prompt; their distance is the diversity."""
BATCH = 8


class Pool:
    """Pairs of the base model and what their images look like; a pair's id is its place in the pool.

    `pairs`: others than those that the lab makes.
    """

    def __init__(self, lab: Lab, size: int, pairs: Sequence[NewPair] | None = None) -> None:
        self.pairs = lab.base_pairs(size) if pairs is None else pairs
        self.references = f"references-{size}"
        """Where the base model's errors on these pairs are kept: a pair of another pool with this number is another."""
        self.images_a = np.stack([pixels(pair.image_a.png) for pair in self.pairs])
        self.images_b = np.stack([pixels(pair.image_b.png) for pair in self.pairs])

        self._memory = MemoryPairs(self.pairs)

    def dataset(self, ids: Sequence[int], wins_a: Sequence[float], settings: RoundSettings) -> PairDataset:
        return self._memory.dataset(ids, wins_a, alpha=settings.alpha)


def votes_of(pool: Pool, taste: str, count: int, wrong: float, seed: int) -> tuple[list[int], list[float]]:
    """Pair ids and wins of image a: `count` pairs drawn by `seed`, the taste's votes, a share of them turned."""
    rng = random.Random(seed)
    ids = sorted(rng.sample(range(len(pool.pairs)), count))
    score = get_taste(taste).scores
    margins = score(pool.images_a[ids]) - score(pool.images_b[ids])
    wins = [0.5 if margin == 0 else float(margin > 0) for margin in margins]
    for position in rng.sample(range(count), round(wrong * count)):
        wins[position] = 1 - wins[position]
    return ids, wins


def train(
    lab: Lab, pool: Pool, settings: RoundSettings, ids: list[int], wins: list[float], seed: int, work: Path
) -> Any:
    """One round; its result, the seconds it took and the settings with their betas."""
    held = [is_held_out(pool.pairs[index].prompt, share=settings.held_out_share, seed=seed) for index in ids]
    sides = [
        (
            [i for i, h in zip(ids, held, strict=True) if h is side],
            [w for w, h in zip(wins, held, strict=True) if h is side],
        )
        for side in (False, True)
    ]
    data, held_out = (pool.dataset(*side, settings) if side[0] else None for side in sides)
    assert data is not None
    settings = calibrated(lab, pool, settings, work)
    plan = RoundPlan(
        round_id=1,
        base_fingerprint=lab.fingerprint,
        seed=seed,
        parent_version=BASE_VERSION,
        settings=settings,
        spec=LoraSpec.from_settings(settings, lab.denoiser.family),
        train=data,
        held_out=held_out,
        train_vote_ids=data.pair_ids,
        held_out_vote_ids=held_out.pair_ids if held_out else (),
        config={},
        key="",
    )
    started = time.perf_counter()
    trainer = RoundTrainer(plan, lab.denoiser, parent=None, reference_folder=work / pool.references)
    losses = []
    while trainer.step < settings.num_steps:
        result = trainer.train_step()
        evaluation = trainer.evaluate_if_due()
        if evaluation is not None:
            losses.append((trainer.step, evaluation.loss, evaluation.agreement.accuracy))
    best = trainer.result()
    trainer.close()
    facts = {"step": best.step, "held_out": losses, "margin": result.agreement.margin, "beta": settings.beta}
    return plan.spec, best.tensors, time.perf_counter() - started, facts


def calibrated(lab: Lab, pool: Pool, settings: RoundSettings, work: Path) -> RoundSettings:
    """Betas from the pool's first pairs: the same for every run."""
    errors, _, _ = errors_of(lab, pool, min(64, len(pool.pairs)), settings, work)
    return calibrate_betas(settings, errors)


def fill_references(lab: Lab, pool: Pool, settings: RoundSettings, work: Path) -> None:
    """Every slot of every pair of the pool, once for all runs."""
    errors, cache, key = errors_of(lab, pool, len(pool.pairs), settings, work)
    missing = errors.missing_references()
    errors.compute_references(missing, batch_pairs=settings.batch_pairs)
    if missing:
        cache.save(work / pool.references, key)


def errors_of(
    lab: Lab, pool: Pool, count: int, settings: RoundSettings, work: Path
) -> tuple[PairErrors, ReferenceCache, str]:
    """Errors of the pool's first pairs, with the references that runs share and the key these are kept under."""
    data = pool.dataset(range(count), [0.5] * count, settings)
    key = numerics_key(lab.denoiser, data, settings, base_fingerprint=lab.fingerprint, micro_pairs=settings.batch_pairs)
    cache = ReferenceCache.load(work / pool.references, key)
    return PairErrors.from_settings(lab.denoiser, data, cache, settings), cache, key


def yardstick(lab: Lab, count: int, version: int) -> Images:
    """`count` images of held-out prompts, two seeds of each in turn, under the version the model holds."""
    shots = [Shot(lab.held_out_prompts[i // SEEDS_PER_PROMPT], FIRST_SEED + i, version) for i in range(count)]
    images = [
        np.asarray(sample.image.convert("RGB"))
        for start in range(0, count, BATCH)
        for sample in lab.model.render(shots[start : start + BATCH])
    ]
    return np.stack(images)


def diversity(images: Images) -> float:
    """Mean absolute difference, in grey levels, between the two images of a prompt at an eighth of their size."""
    small = images.reshape(len(images), images.shape[1] // 8, 8, images.shape[2] // 8, 8, 3).mean((2, 4))
    return float(np.abs(small[0::2] - small[1::2]).mean())


def measure(lab: Lab, taste: str, before: Images, after: Images) -> dict[str, Any]:
    score = get_taste(taste).scores
    old, new = score(before), score(after)
    prompts = [lab.held_out_prompts[i // SEEDS_PER_PROMPT] for i in range(len(after))]
    return {
        "wins": float((new > old).sum() + 0.5 * (new == old).sum()),
        "pairs": len(after),
        "fidelity": fidelity_of(after, prompts),
        "base_fidelity": fidelity_of(before, prompts),
        "diversity": diversity(after) / diversity(before),
    }


def grid(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every combination asked for, as the facts that name a run."""
    axes = (
        arguments.tastes,
        arguments.wrong,
        arguments.votes,
        arguments.seeds,
        arguments.objectives,
        arguments.spreads,
    )
    return [
        {
            "objective": objective,
            "spread": spread,
            "taste": taste,
            "votes": votes,
            "wrong": wrong,
            "seed": seed,
            "set": sorted(arguments.overrides),
        }
        for taste, wrong, votes, seed, objective, spread in itertools.product(*axes)
    ]


def settings_of(facts: dict[str, Any], base: Settings, overrides: Sequence[str]) -> RoundSettings:
    """`spread` scales the beta that the data give: 2 is twice the objective's usual one."""
    round_settings = with_overrides(base, overrides).round
    return round_settings.model_copy(update={"objective": facts["objective"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--objectives", nargs="+", default=["dmpo"])
    parser.add_argument("--spreads", nargs="+", type=float, default=[1.0], help="factors on the beta from the data")
    parser.add_argument("--tastes", nargs="+", default=["warm", "bright", "large", "left"])
    parser.add_argument("--votes", nargs="+", type=int, default=[96])
    parser.add_argument("--wrong", nargs="+", type=float, default=[0.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--pairs", type=int, default=100, help="images to compare on")
    parser.add_argument("--pool", type=int, default=360)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--share", default="0/1", help="I/N: every N-th run from the I-th on")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dmpo-few-votes")
    parser.add_argument("--set", nargs="+", default=[], dest="overrides", metavar="GROUP.NAME=VALUE")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    base = Settings()
    lab = Lab(with_overrides(base, arguments.overrides), arguments.work)
    pool = Pool(lab, arguments.pool)
    fill_references(lab, pool, lab.settings.round, arguments.work)
    before = lab.kept_images(
        "few-votes-yardstick", arguments.pairs, lambda: yardstick(lab, arguments.pairs, BASE_VERSION)
    )
    index, count = map(int, arguments.share.split("/"))
    for facts in grid(arguments)[index::count]:
        if facts in done(arguments.out):
            continue
        settings = settings_of(facts, base, arguments.overrides)
        if facts["spread"] != 1:
            usual = calibrated(lab, pool, settings, arguments.work)
            settings = settings.model_copy(
                update={"beta": facts["spread"] * (usual.beta or 0), "margin_beta": usual.margin_beta}
            )
        ids, wins = votes_of(pool, facts["taste"], facts["votes"], facts["wrong"], facts["seed"])
        spec, tensors, seconds, training = train(lab, pool, settings, ids, wins, facts["seed"], arguments.work)
        lab.model.swap(1, AdapterWeights(spec=spec, tensors=tensors))
        record = {"run": facts, **measure(lab, facts["taste"], before, yardstick(lab, arguments.pairs, 1))}
        record |= {"seconds": round(seconds, 1), "training": training}
        lab.model.swap(BASE_VERSION, None)
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(facts), f"{record['wins'] / record['pairs']:.1%}", f"{seconds:.0f} s", flush=True)


def done(path: Path) -> list[dict[str, Any]]:
    """The runs that `path` holds."""
    if not path.exists():
        return []
    return [json.loads(line)["run"] for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()

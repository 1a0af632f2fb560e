"""The choice of a round's step: by the yardstick, by the training loss, or the last one, on the pocket model.

    python -m benchmarks.step_choice run --out benchmarks/results/step-choice.jsonl
    python -m benchmarks.step_choice report benchmarks/results/step-choice.jsonl

One training gives all three choices: every evaluation of a round is recorded with the yardstick and the loss, and those
that one of the rules chooses with the true win rate of their adapter, the share of images of held-out prompts in which
the taste prefers it to the base model. A taste votes on the 64 starter pairs, three tenths of the prompts are held out,
and the images are drawn in ten steps. One line a training; those that are there already are not made again.
"""

import argparse
import itertools
import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.few_votes import Pool, calibrated, done, fill_references, measure, votes_of, yardstick
from benchmarks.learning_lab import Images, Lab
from benchmarks.report import print_table
from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.domain.lineage import BASE_VERSION
from dmpo_app.exchange.importing.starter_pairs import read_starter_pairs
from dmpo_app.settings import RoundSettings, Settings
from dmpo_app.training.data.dataset import is_held_out
from dmpo_app.training.loop.trainer import RoundTrainer
from dmpo_app.training.monitoring.evaluation import Evaluation
from dmpo_app.training.rounds.round_plan import RoundPlan

TASTES = ("warm", "bright", "large", "left")
SEEDS = (11, 12, 13)
WRONG = (0.0, 0.2, 0.3)
VOTES = 64
HELD_OUT_SHARE = 0.3
"""More than a round's 0.2: of 64 votes, about 19 choose the step."""
SAMPLING_STEPS = 10


def make_plan(lab: Lab, pool: Pool, settings: RoundSettings, facts: Mapping[str, Any]) -> RoundPlan:
    """The plan of one training, its votes split by prompt."""
    ids, wins = votes_of(pool, facts["taste"], facts["votes"], facts["wrong"], facts["seed"])
    held_flags = [is_held_out(pool.pairs[one].prompt, share=settings.held_out_share, seed=facts["seed"]) for one in ids]
    train, held_out = (
        pool.dataset(
            [one for one, flag in zip(ids, held_flags, strict=True) if flag is side],
            [win for win, flag in zip(wins, held_flags, strict=True) if flag is side],
            settings,
        )
        for side in (False, True)
    )
    return RoundPlan(
        round_id=1,
        base_fingerprint=lab.fingerprint,
        seed=facts["seed"],
        parent_version=BASE_VERSION,
        settings=settings,
        spec=LoraSpec.from_settings(settings, lab.denoiser.family),
        train=train,
        held_out=held_out,
        train_vote_ids=train.pair_ids,
        held_out_vote_ids=held_out.pair_ids,
        config={},
        key="",
    )


def train(lab: Lab, pool: Pool, plan: RoundPlan, work: Path) -> list[tuple[int, Evaluation, AdapterWeights]]:
    """Train to the last step; every evaluation with its step and its adapter."""
    trainer = RoundTrainer(plan, lab.denoiser, parent=None, reference_folder=work / pool.references)
    evaluations = []
    while trainer.step < plan.settings.num_steps:
        trainer.train_step()
        evaluation = trainer.evaluate_if_due()
        if evaluation is not None:
            tensors = {name: tensor.clone() for name, tensor in trainer.checkpoint().tensors.items()}
            evaluations.append((trainer.step, evaluation, AdapterWeights(spec=plan.spec, tensors=tensors)))
    trainer.close()
    return evaluations


def run_one(lab: Lab, pool: Pool, facts: Mapping[str, Any], before: Images, work: Path) -> dict[str, Any]:
    plan = make_plan(lab, pool, calibrated(lab, pool, lab.settings.round, work), facts)
    assert plan.held_out is not None
    rows, adapters = [], {}
    for step, evaluation, adapter in train(lab, pool, plan, work):
        adapters[step] = adapter
        rows.append(
            {
                "step": step,
                "voted_probability": evaluation.voted_probability,
                "loss": evaluation.loss,
                "accuracy": evaluation.agreement.accuracy,
                "margins": [round(margin, 3) for margin in evaluation.margins],
            }
        )
    for step in {int(row["step"]) for row in choices(rows).values()}:
        lab.model.swap(1, adapters[step])
        measured = measure(lab, facts["taste"], before, yardstick(lab, len(before), 1))
        lab.model.swap(BASE_VERSION, None)
        next(row for row in rows if row["step"] == step)["win_rate"] = measured["wins"] / measured["pairs"]
    votes = plan.held_out.vote_shares.tolist()
    return {"run": dict(facts), "images": len(before), "held_out_votes": votes, "evaluations": rows}


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    base = Settings()
    changes = {"health_images": 0, "held_out_share": HELD_OUT_SHARE}
    settings = base.model_copy(
        update={
            "round": base.round.model_copy(update=changes),
            "render": base.render.model_copy(update={"num_steps": SAMPLING_STEPS}),
        }
    )
    lab = Lab(settings, arguments.work)
    pool = Pool(lab, VOTES, read_starter_pairs(base.pool.starter_pairs).pairs)
    fill_references(lab, pool, settings.round, arguments.work)
    before = lab.kept_images(
        "few-votes-yardstick", arguments.pairs, lambda: yardstick(lab, arguments.pairs, BASE_VERSION)
    )
    for seed, wrong, taste in itertools.product(arguments.seeds, arguments.wrong, arguments.tastes):
        facts = {"taste": taste, "votes": VOTES, "wrong": wrong, "seed": seed}
        if facts in done(arguments.out):
            continue
        record = run_one(lab, pool, facts, before, arguments.work)
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(
            json.dumps(facts),
            {rule: row["win_rate"] for rule, row in choices(record["evaluations"]).items()},
            flush=True,
        )


def choices(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The evaluation that each rule chooses; the last of equals, as the trainer does."""
    return {
        "yardstick": max(reversed(evaluations), key=lambda row: row["voted_probability"]),
        "loss": min(reversed(evaluations), key=lambda row: row["loss"]),
        "last": evaluations[-1],
    }


def report(arguments: argparse.Namespace) -> None:
    """Print the mean true win rate of each choice, its difference to the yardstick's, and the mean step."""
    rows_by_wrong: dict[float, list[dict[str, Mapping[str, Any]]]] = defaultdict(list)
    for line in arguments.file.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        rows_by_wrong[record["run"]["wrong"]].append(choices(record["evaluations"]))
    rows = []
    for wrong, chosen in sorted(rows_by_wrong.items()):
        reference = np.array([one["yardstick"]["win_rate"] for one in chosen])
        for rule in ("yardstick", "loss", "last"):
            rates = np.array([one[rule]["win_rate"] for one in chosen])
            difference = reference - rates
            half = 2.2 * difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else float("nan")
            rows.append(
                [
                    f"{wrong:.0%}",
                    str(len(chosen)),
                    rule,
                    f"{rates.mean():.1%}",
                    f"{rates.min():.1%}",
                    f"{100 * difference.mean():+.1f} ± {100 * half:.1f}" if rule != "yardstick" else "",
                    f"{np.mean([one[rule]['step'] for one in chosen]):.0f}",
                ]
            )
    print_table(["wrong", "runs", "choice by", "win rate", "least", "yardstick ahead by", "mean step"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run")
    running.set_defaults(act=run)
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--tastes", nargs="+", default=TASTES)
    running.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    running.add_argument("--wrong", nargs="+", type=float, default=WRONG)
    running.add_argument("--pairs", type=int, default=48, help="images to compare on")
    running.add_argument("--threads", type=int, default=1)
    running.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dmpo-step-choice")
    reporting = commands.add_parser("report")
    reporting.set_defaults(act=report)
    reporting.add_argument("file", type=Path)
    arguments = parser.parse_args()
    arguments.act(arguments)


if __name__ == "__main__":
    main()

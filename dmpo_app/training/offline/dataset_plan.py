"""What a training on a data set does: which pairs judge, how many steps, and the plan that the trainer takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.domain.lineage import BASE_VERSION
from dmpo_app.objective import soft_target
from dmpo_app.settings import RoundSettings
from dmpo_app.store.files import Files
from dmpo_app.training.data.dataset import PairDataset, is_held_out
from dmpo_app.training.data.encoded_pairs import PairTable
from dmpo_app.training.data.pair_tensors import PairTensors
from dmpo_app.training.data.slots import keyed_seed
from dmpo_app.training.reference.calibration import MAX_PAIRS
from dmpo_app.training.rounds.round_plan import RoundPlan

MIN_STEPS, MAX_STEPS = 80, 2000
"""Between which one pass over the data lies where nothing else is asked for. 80 is a round's usual number; 2,000 that
of the third-party scripts that train on Pick-a-Pic, whose batches are larger."""
USUAL_HELD_OUT = 512
"""Pairs to judge by where no share is set: every look at them costs as much as some steps."""


def with_usual_values(settings: RoundSettings, num_pairs: int) -> RoundSettings:
    """The settings with what nobody has set fitted to the number of pairs; what is set stays.

    Held out is the usual share but not more than about 512 pairs; steps make one pass over the others, 80 at least and
    2,000 at most; twenty times on the way the held-out pairs are looked at, not more often than every 20 steps.
    """
    given = settings.model_fields_set
    updates: dict[str, Any] = {}
    share = settings.held_out_share
    if "held_out_share" not in given:
        share = updates["held_out_share"] = min(share, USUAL_HELD_OUT / max(num_pairs, 1))
    steps = settings.num_steps
    if "num_steps" not in given:
        one_pass = -(-round(num_pairs * (1 - share)) // settings.batch_pairs)
        steps = updates["num_steps"] = min(max(one_pass, MIN_STEPS), MAX_STEPS)
    if "evaluate_every" not in given:
        updates["evaluate_every"] = max(settings.evaluate_every, steps // 20)
    return settings.model_copy(update=updates)


def split_pairs(prompts: Sequence[str], settings: RoundSettings) -> tuple[list[int], list[int]]:
    """Numbers of the pairs to train on and of those that judge, by prompt; all train when all would judge."""
    sides = [is_held_out(prompt, share=settings.held_out_share, seed=settings.seed) for prompt in prompts]
    train = [number for number, held_out in enumerate(sides) if not held_out]
    if not train:
        return list(range(len(prompts))), []
    return train, [number for number, held_out in enumerate(sides) if held_out]


def dataset_of(table: PairTable, numbers: Sequence[int], files: Files, *, alpha: float) -> PairDataset:
    """Some pairs of the table; a pair's id is its number, whatever it is chosen with. No tensor is read."""
    packed = table.files.chosen(numbers)
    votes = torch.tensor([table.num_votes[number] for number in numbers])
    wins = torch.tensor([table.wins_a[number] for number in numbers]) * votes
    return PairDataset(
        pair_ids=tuple(numbers),
        prompts=tuple(table.prompts[number] for number in numbers),
        files=packed,
        targets=soft_target(wins, votes, alpha=alpha),
        weights=votes,
        tensors=PairTensors(files),
    )


def calibration_pairs(table: PairTable, files: Files, *, alpha: float) -> PairDataset:
    """The pairs that beta is found from: the first ones."""
    return dataset_of(table, range(min(MAX_PAIRS, len(table.prompts))), files, alpha=alpha)


def plan_key(facts: Any) -> str:
    """A sha256 (hex) over JSON values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def make_plan(
    table: PairTable,
    files: Files,
    denoiser: Denoiser,
    settings: RoundSettings,
    *,
    base_fingerprint: str,
    key: str,
) -> RoundPlan:
    """The plan of a training with settings whose betas are known."""
    train, held_out = split_pairs(table.prompts, settings)
    return RoundPlan(
        round_id=1,
        base_fingerprint=base_fingerprint,
        seed=keyed_seed(settings.seed, "offline") % 2**31,
        parent_version=BASE_VERSION,
        settings=settings,
        spec=LoraSpec.of(settings, denoiser.family),
        train=dataset_of(table, train, files, alpha=settings.alpha),
        held_out=dataset_of(table, held_out, files, alpha=settings.alpha) if held_out else None,
        train_vote_ids=tuple(train),
        held_out_vote_ids=tuple(held_out),
        config={"settings": settings.model_dump(mode="json")},
        key=key,
    )

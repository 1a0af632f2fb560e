"""What a round does, fixed when it first starts: its settings, seed and votes, and what it is measured against."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dmpo_app.diffusion.families.registry import family_named
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.domain import BaseModelRef, RoundState, Trigger
from dmpo_app.errors import RoundFailed
from dmpo_app.settings import RoundSettings
from dmpo_app.store import Store
from dmpo_app.training.dataset import PairDataset, build_dataset, split_votes, votes_among
from dmpo_app.training.slots import keyed_seed

BETAS: Mapping[str, float] = {"epsilon": 2000.0, "v_prediction": 500.0, "flow": 500.0}
"""By what the model predicts. Noise: the convention of Diffusion-DPO (arXiv 2311.12908) for Stable Diffusion 1.5.
Velocity: measured on the pocket model; its errors are larger wherever much noise is. Flow: not measured; what is
predicted is a velocity there too."""


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """A round, ready to run. `key` changes when anything that the result depends on does."""

    round_id: int
    base_fingerprint: str
    seed: int
    parent_version: int
    settings: RoundSettings
    spec: LoraSpec
    train: PairDataset
    held_out: PairDataset | None
    train_vote_ids: tuple[int, ...]
    held_out_vote_ids: tuple[int, ...]
    config: Mapping[str, Any]
    key: str

    @property
    def beta(self) -> float:
        """Scale of the margin; `with_beta` has filled it in before the round was started."""
        if self.settings.beta is None:
            raise RoundFailed(f"round {self.round_id} was started without a beta")
        return self.settings.beta


def with_beta(settings: RoundSettings, prediction_type: str) -> RoundSettings:
    """The settings with the beta that goes with what the model predicts, unless one is set."""
    return settings if settings.beta is not None else settings.model_copy(update={"beta": BETAS[prediction_type]})


def start_round(
    store: Store,
    base: BaseModelRef,
    round_id: int,
    *,
    trigger: Trigger,
    settings: RoundSettings,
    environment: Mapping[str, Any],
    token: int,
) -> RoundState:
    """Mark a round as running. The first start fixes its votes, seed and settings; a later one finds them as they are.

    `environment` is recorded with the settings: what the numbers' last bits depend on. Raises LeaseLost.
    """
    votes = store.votes.training_votes(base)
    return store.rounds.start(
        base,
        round_id,
        trigger=trigger,
        seed=keyed_seed(settings.seed, "round", round_id) % 2**31,
        steps=settings.num_steps,
        config={"settings": settings.model_dump(mode="json"), "environment": dict(environment)},
        votes=split_votes(votes, share=settings.held_out_share, seed=settings.seed),
        parent_version=store.adapters.live_version(base),
        token=token,
    )


def load_plan(store: Store, base: BaseModelRef, state: RoundState) -> RoundPlan:
    """Read a started round's votes and tensors. A vote that was taken back since is left out.

    Raises RoundFailed when no vote to train on is left, StudioError when a file is damaged.
    """
    settings = RoundSettings.model_validate(state.config["settings"])
    sides = dict(store.rounds.votes_of(state.id))
    votes = votes_among(store.votes.training_votes(base), sides)
    train = [vote for vote in votes if not sides[vote.vote_id]]
    held_out = [vote for vote in votes if sides[vote.vote_id]]
    if not train:
        raise RoundFailed("every vote of this round was taken back; the next round starts when new ones are in")
    facts = [base.fingerprint, state.seed, state.parent_version, settings.model_dump(mode="json"), sides]
    facts.append([(vote.vote_id, vote.outcome, vote.latents_a, vote.latents_b, vote.prompt_embeds) for vote in votes])
    return RoundPlan(
        round_id=state.id,
        base_fingerprint=base.fingerprint,
        seed=state.seed,
        parent_version=state.parent_version,
        settings=settings,
        spec=LoraSpec.of(settings, family_named(base.family)),
        train=build_dataset(train, store.files, alpha=settings.alpha),
        held_out=build_dataset(held_out, store.files, alpha=settings.alpha) if held_out else None,
        train_vote_ids=tuple(vote.vote_id for vote in train),
        held_out_vote_ids=tuple(vote.vote_id for vote in held_out),
        config=state.config,
        key=hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
    )

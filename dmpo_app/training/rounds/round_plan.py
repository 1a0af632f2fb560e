"""What a round does, fixed when it first starts: its settings, seed and votes, and what it is measured against."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dmpo_app.diffusion.families.registry import family_named
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.round import RoundState, TrainingVote, Trigger
from dmpo_app.domain.vote import Question
from dmpo_app.errors import RoundFailed
from dmpo_app.labeling.quality import UNWEIGHED, VoteWeighing
from dmpo_app.objective import objective_named
from dmpo_app.settings import RoundSettings
from dmpo_app.store import Store
from dmpo_app.training.data.dataset import (
    AutomaticEvidence,
    PairDataset,
    TensorFiles,
    build_dataset,
    split_votes,
    votes_among,
)
from dmpo_app.training.data.slots import keyed_seed
from dmpo_app.training.loop.step import LossSettings
from dmpo_app.training.rounds.scorer_targets import AutomaticPlan, evidence_of


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
    def loss(self) -> LossSettings:
        """What the round minimises."""
        settings = self.settings
        return LossSettings(
            objective=objective_named(settings.objective, settings.objective_options),
            beta=self._filled_in(settings.beta),
            margin_beta=self.margin_beta,
            options=settings.objective_options,
            winner_guard=settings.winner_guard,
        )

    @property
    def margin_beta(self) -> float:
        """Scale of the margins that are reported and judged by."""
        return self._filled_in(self.settings.margin_beta or self.settings.beta)

    def _filled_in(self, beta: float | None) -> float:
        """`calibration.with_betas` has seen to that before the round was started."""
        if beta is None:
            raise RoundFailed(f"round {self.round_id} was started without a beta")
        return beta


def start_round(
    store: Store,
    base: BaseModelRef,
    round_id: int,
    *,
    trigger: Trigger,
    settings: RoundSettings,
    environment: Mapping[str, Any],
    token: int,
    question: Question = Question.OVERALL,
    automatic: AutomaticPlan | None = None,
    weighing: VoteWeighing = UNWEIGHED,
) -> RoundState:
    """Mark a round as running. The first start fixes its votes, seed and settings; a later one finds them as they are.

    It learns from the votes on `question`. `environment` is recorded with the settings: what the numbers' last bits
    depend on. `weighing` says what the votes of an annotator count; it is recorded with what came of it. Raises
    LeaseLost.
    """
    votes = store.votes.training_votes(base, question=question)
    config: dict[str, Any] = {
        "settings": settings.model_dump(mode="json"),
        "environment": dict(environment),
        "question": question.value,
    }
    if automatic is not None:
        config["automatic"] = automatic.to_config()
    sides = split_votes(votes, share=settings.held_out_share, seed=settings.seed)
    if not weighing.is_off:
        train = [vote for vote, (_, held_out) in zip(votes, sides, strict=True) if not held_out]
        config["weighing"] = weighing.to_config() | {"summary": dict(weighing.weights(train).summary)}
    return store.rounds.start(
        base,
        round_id,
        trigger=trigger,
        seed=keyed_seed(settings.seed, "round", round_id) % 2**31,
        steps=settings.num_steps,
        config=config,
        votes=sides,
        parent_version=store.adapters.live_version(base),
        token=token,
    )


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What the store knows of a started round, as plain values that can go to a process without a database.

    `votes` are those that still count; `sides` says of each vote id of the round whether it is held out.
    """

    base: BaseModelRef
    state: RoundState
    votes: tuple[TrainingVote, ...]
    sides: Mapping[int, bool]
    evidence: AutomaticEvidence | None

    @property
    def train(self) -> list[TrainingVote]:
        return [vote for vote in self.votes if not self.sides[vote.vote_id]]


def load_plan(store: Store, base: BaseModelRef, state: RoundState) -> RoundPlan:
    """A started round's plan: `read_facts`, then `plan_of`; raises like these."""
    return plan_of(read_facts(store, base, state), store.files)


def read_facts(store: Store, base: BaseModelRef, state: RoundState) -> PlanFacts:
    """Read a started round's votes. A vote that was taken back, withdrawn or whose pair was reported since is left out.

    Raises RoundFailed when no vote to train on is left, or a score has gone missing.
    """
    sides = dict(store.rounds.votes_of(state.id))
    question = Question(state.config.get("question", Question.OVERALL))  # older rounds knew but one
    votes = votes_among(store.votes.training_votes(base, question=question), sides)
    facts = PlanFacts(base, state, tuple(votes), sides, None)
    train = facts.train
    if not train:
        raise RoundFailed("every vote of this round was taken back; the next round starts when new ones are in")
    if "automatic" not in state.config:
        return facts
    weight_of = _annotator_weights(state.config, train)
    automatic = AutomaticPlan.from_config(state.config["automatic"])
    judged = [vote.pair_id for vote in train if weight_of(vote.annotator_id) > 0]
    return replace(facts, evidence=evidence_of(store, base, automatic, judged))


def plan_of(known: PlanFacts, files: TensorFiles) -> RoundPlan:
    """The plan that these facts make, tensors from `files`: the same facts make the same plan in any process."""
    state, votes, sides = known.state, known.votes, known.sides
    settings = RoundSettings.model_validate(state.config["settings"])
    weight_of = _annotator_weights(state.config, known.train)
    # A vote that counts nothing is not trained on, and a batch of nothing else would have no mean.
    train = [vote for vote in known.train if weight_of(vote.annotator_id) > 0]
    held_out = [vote for vote in votes if sides[vote.vote_id] and weight_of(vote.annotator_id) > 0]
    facts: list[Any] = [known.base.fingerprint, state.seed, state.parent_version, state.config, sides]
    facts.append([(vote.vote_id, vote.outcome, vote.latents_a, vote.latents_b, vote.prompt_embeds) for vote in votes])
    if rankings := [(vote.vote_id, vote.ranking, vote.more_latents) for vote in votes if vote.ranking]:
        facts.extend([rankings, settings.learns_whole_rankings])
    return RoundPlan(
        round_id=state.id,
        base_fingerprint=known.base.fingerprint,
        seed=state.seed,
        parent_version=state.parent_version,
        settings=settings,
        spec=LoraSpec.of(settings, family_named(known.base.family)),
        train=build_dataset(
            train,
            files,
            alpha=settings.alpha,
            annotator_weight=weight_of,
            automatic=known.evidence,
            learn_whole_rankings=settings.learns_whole_rankings,
        ),
        held_out=build_dataset(held_out, files, alpha=settings.alpha, annotator_weight=weight_of) if held_out else None,
        train_vote_ids=tuple(vote.vote_id for vote in train),
        held_out_vote_ids=tuple(vote.vote_id for vote in held_out),
        config=state.config,
        key=hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
    )


def _annotator_weights(config: Mapping[str, Any], train: Sequence[TrainingVote]) -> Callable[[int], float]:
    """What a vote counts in this round, by annotator.

    Found from the votes that are trained on alone, so that those which judge the round have no say in it. They are
    found again rather than read: the same votes give the same weights.
    """
    if "weighing" not in config:
        return UNWEIGHED.weights(()).of
    return VoteWeighing.from_config(config["weighing"]).weights(train).of

"""The plan of a round, fixed when it first starts: its settings, seed, votes, and the version to compare with."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dmpo_app.diffusion.adapter_files import AdapterWeights, read_adapter
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.registry import get_family
from dmpo_app.diffusion.lora import LoraSpec, check_fit, expected_shapes
from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef, RoundState, TrainingVote, Trigger
from dmpo_app.domain.vote import Question
from dmpo_app.errors import AdapterError, RoundFailedError
from dmpo_app.io.files import sha256_hex
from dmpo_app.labeling.quality import UNWEIGHED, VoteWeighing
from dmpo_app.labeling.quality.quality_report import build_weighing
from dmpo_app.objective import get_objective
from dmpo_app.settings import RoundSettings, Settings
from dmpo_app.store import Store
from dmpo_app.training.data import dataset
from dmpo_app.training.data.training_examples import keyed_seed
from dmpo_app.training.loop.step import PreferenceLoss
from dmpo_app.training.rounds.scorer_targets import AutomaticPlan, compute_evidence, score_for_round
from dmpo_app.training.rounds.withdrawals import without_taken_back

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """The plan of a round, ready to run. `key` changes when anything that the result depends on does."""

    round_id: int
    base_fingerprint: str
    seed: int
    parent_version: int
    settings: RoundSettings
    spec: LoraSpec
    train: dataset.PairDataset
    held_out: dataset.PairDataset | None
    train_vote_ids: tuple[int, ...]
    held_out_vote_ids: tuple[int, ...]
    config: Mapping[str, Any]
    key: str

    @property
    def loss(self) -> PreferenceLoss:
        """The loss that the round minimises."""
        settings = self.settings
        return PreferenceLoss(
            objective=get_objective(settings.objective, settings.objective_options),
            beta=self._require_beta(settings.beta),
            margin_beta=self.margin_beta,
            options=settings.objective_options,
            winner_guard=settings.winner_guard,
        )

    @property
    def margin_beta(self) -> float:
        """The scale of the margins in reports and evaluations."""
        return self._require_beta(self.settings.margin_beta or self.settings.beta)

    def _require_beta(self, beta: float | None) -> float:
        """Require a beta: `calibration.calibrate_betas` fills it in before a round is started."""
        if beta is None:
            raise RoundFailedError(f"round {self.round_id} was started without a beta")
        return beta


def start_or_resume(
    store: Store,
    base: BaseModelRef,
    settings: Settings,
    state: RoundState,
    *,
    calibrate: Callable[[Sequence[TrainingVote]], RoundSettings],
    scoring_device: str,
    environment: Mapping[str, Any],
    token: int,
    heartbeat: Callable[[], None],
) -> RoundState:
    """Start a round with what the studio's settings ask for, or resume it; one that was started keeps what it has.

    `calibrate` gives the round's settings with every beta, from the votes. Scorers run on `scoring_device`, with a
    `heartbeat` between batches. Raises RoundFailedError when a beta or a scorer cannot be had, LeaseLostError,
    StorageFullError.
    """
    round_settings, automatic = settings.round, None
    question = settings.labeling.training_question
    if state.started_at is None:
        votes = store.votes.training_votes(base, question=question)
        round_settings = calibrate(votes)
        share, seed = round_settings.held_out_share, round_settings.seed
        automatic = score_for_round(
            store,
            base,
            round_settings.scoring,
            votes,
            may_train_on=lambda prompt: not dataset.is_held_out(prompt, share=share, seed=seed),
            device=scoring_device,
            heartbeat=heartbeat,
        )
    return start_round(
        store,
        base,
        state.id,
        trigger=state.trigger,
        settings=round_settings,
        environment=environment,
        token=token,
        question=question,
        automatic=automatic,
        weighing=build_weighing(store, base, settings) if state.started_at is None else UNWEIGHED,
        withdrawn_votes=settings.trainer.withdrawn_votes,
    )


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
    withdrawn_votes: int | None = None,
) -> RoundState:
    """Start or resume a round. The first start fixes its votes, seed and settings; a later one reads them.

    It learns from the votes on `question`. `environment` is recorded with the settings: what the numbers' last bits
    depend on. `weighing` says what the votes of an annotator count; it is recorded with what came of it.
    `withdrawn_votes`: from how many on a live version that learned from votes taken back is replaced. Raises
    LeaseLostError.
    """
    parent_version = store.adapters.live_version(base)
    settings, replacement = without_taken_back(
        store, base, settings, live=parent_version, trigger=trigger, threshold=withdrawn_votes
    )
    votes = store.votes.training_votes(base, question=question)
    config: dict[str, Any] = {
        "settings": settings.model_dump(mode="json"),
        "environment": dict(environment),
        "question": question.value,
        **replacement,
    }
    if automatic is not None:
        config["automatic"] = automatic.to_config()
    vote_split = dataset.split_votes(votes, share=settings.held_out_share, seed=settings.seed)
    if not weighing.is_off:
        train = [vote for vote, (_, held_out) in zip(votes, vote_split, strict=True) if not held_out]
        config["weighing"] = weighing.to_config() | {"summary": dict(weighing.weights(train).summary)}
    return store.rounds.start(
        base,
        round_id,
        trigger=trigger,
        seed=keyed_seed(settings.seed, "round", round_id) % 2**31,
        steps=settings.num_steps,
        config=config,
        votes=vote_split,
        parent_version=parent_version,
        token=token,
    )


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """The inputs of a started round's plan from the store, as plain values for a process without a database.

    `votes` are those that still count; `held_out_by_vote_id` has every vote of the round.
    """

    base: BaseModelRef
    state: RoundState
    votes: tuple[TrainingVote, ...]
    held_out_by_vote_id: Mapping[int, bool]
    evidence: dataset.AutomaticEvidence | None

    @property
    def train(self) -> list[TrainingVote]:
        return [vote for vote in self.votes if not self.held_out_by_vote_id[vote.vote_id]]


def load_plan(store: Store, base: BaseModelRef, state: RoundState) -> RoundPlan:
    """Load a started round's plan: `read_plan_inputs`, then `build_plan`; raises like these."""
    return build_plan(read_plan_inputs(store, base, state), store.files)


def read_plan_inputs(store: Store, base: BaseModelRef, state: RoundState) -> PlanInputs:
    """Read a started round's votes, without those taken back or withdrawn since, or on pairs reported since.

    Raises RoundFailedError when no vote to train on is left, or a score has gone missing.
    """
    held_out_by_vote_id = dict(store.rounds.votes(state.id))
    question = Question(state.config.get("question", Question.OVERALL))  # older rounds knew but one
    votes = dataset.filter_votes(store.votes.training_votes(base, question=question), held_out_by_vote_id)
    plan_inputs = PlanInputs(base, state, tuple(votes), held_out_by_vote_id, None)
    train = plan_inputs.train
    if not train:
        raise RoundFailedError("every vote of this round was taken back; the next round starts when new ones are in")
    if "automatic" not in state.config:
        return plan_inputs
    annotator_weight = _annotator_weights(state.config, train)
    automatic = AutomaticPlan.from_config(state.config["automatic"])
    voted_pair_ids = [vote.pair_id for vote in train if annotator_weight(vote.annotator_id) > 0]
    return replace(plan_inputs, evidence=compute_evidence(store, base, automatic, voted_pair_ids))


def build_plan(plan_inputs: PlanInputs, files: dataset.TensorFiles) -> RoundPlan:
    """Build the plan, tensors from `files`: the same inputs give the same plan in any process."""
    state, votes, held_out_by_vote_id = plan_inputs.state, plan_inputs.votes, plan_inputs.held_out_by_vote_id
    settings = RoundSettings.model_validate(state.config["settings"])
    annotator_weight = _annotator_weights(state.config, plan_inputs.train)
    # A vote that counts nothing is not trained on, and a batch of nothing else would have no mean.
    train = [vote for vote in plan_inputs.train if annotator_weight(vote.annotator_id) > 0]
    held_out = [vote for vote in votes if held_out_by_vote_id[vote.vote_id]]
    held_out_weight = _annotator_weights(state.config, plan_inputs.train, applied_to=held_out)
    held_out = [vote for vote in held_out if held_out_weight(vote.annotator_id) > 0]
    key_values: list[Any] = [
        plan_inputs.base.fingerprint,
        state.seed,
        state.parent_version,
        state.config,
        held_out_by_vote_id,
    ]
    key_values.append(
        [(vote.vote_id, vote.outcome, vote.latents_a, vote.latents_b, vote.prompt_embeds) for vote in votes]
    )
    if rankings := [(vote.vote_id, vote.ranking, vote.more_latents) for vote in votes if vote.ranking]:
        key_values.extend([rankings, settings.learns_whole_rankings])
    return RoundPlan(
        round_id=state.id,
        base_fingerprint=plan_inputs.base.fingerprint,
        seed=state.seed,
        parent_version=state.parent_version,
        settings=settings,
        spec=LoraSpec.from_settings(settings, get_family(plan_inputs.base.family)),
        train=dataset.build_dataset(
            train,
            files,
            alpha=settings.alpha,
            annotator_weight=annotator_weight,
            automatic=plan_inputs.evidence,
            learn_whole_rankings=settings.learns_whole_rankings,
        ),
        held_out=dataset.build_dataset(held_out, files, alpha=settings.alpha, annotator_weight=held_out_weight)
        if held_out
        else None,
        train_vote_ids=tuple(vote.vote_id for vote in train),
        held_out_vote_ids=tuple(vote.vote_id for vote in held_out),
        config=state.config,
        key=sha256_hex(json.dumps(key_values, sort_keys=True).encode()),
    )


def parent_files(store: Store, base: BaseModelRef, plan: RoundPlan) -> tuple[Path, str] | None:
    """Folder and sha256 of the version that was live when the round began; None for the base model."""
    if plan.parent_version == BASE_VERSION:
        return None
    adapter = store.adapters.get(base, plan.parent_version)
    return adapter.folder, adapter.sha256


def read_parent(files: tuple[Path, str] | None, plan: RoundPlan, denoiser: Denoiser) -> AdapterWeights | None:
    """Read the version of `parent_files`; None for the base model, or when it cannot be used on this denoiser."""
    if files is None:
        return None
    try:
        weights = read_adapter(*files)
        check_fit(weights.tensors, expected_shapes(denoiser.module, weights.spec))
    except AdapterError as error:
        _log.warning("round %d goes on without its parent: %s", plan.round_id, error)
        return None
    return weights


def _annotator_weights(
    config: Mapping[str, Any], train: Sequence[TrainingVote], *, applied_to: Sequence[TrainingVote] | None = None
) -> Callable[[int], float]:
    """The weight of a vote in this round, by annotator, among those that are trained on or those of `applied_to`.

    Reliability is computed from the votes that are trained on alone, so that the held-out votes have no say in it;
    shares are those of the votes that are weighed. Both are computed again rather than stored: the same votes give the
    same weights.
    """
    if "weighing" not in config:
        return UNWEIGHED.weights(()).weight_for
    return VoteWeighing.from_config(config["weighing"]).weights(train, applied_to=applied_to).weight_for

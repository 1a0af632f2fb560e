"""Annotators' weights in a round: their effect, and none where they are all 1."""

import json
import random
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.domain.lineage import RoundStatus, Trigger
from dmpo_app.domain.vote import Choice
from dmpo_app.labeling.quality import UNWEIGHED, VoteWeighing
from dmpo_app.labeling.quality.quality_report import build_weighing
from dmpo_app.settings import LabelingSettings, NewcomerSettings, RoundSettings, Settings
from dmpo_app.training.rounds.round_plan import RoundPlan, load_plan, start_round
from dmpo_app.training.rounds.scheduler import Tick
from tests.training.scheduler_fixtures import MakeScheduler
from tests.training.training_studio import FAST, TrainingStudio, assert_equal, twin_of, weights_of

DAWID_SKENE = VoteWeighing("dawid_skene")


def vote_as(studio: TrainingStudio, count: int, *, against: bool = False) -> int:
    """A new annotator judges `count` pairs by their images, or the other way round; returns who."""
    who, rng = studio.store.annotators.ensure("somebody").id, random.Random(0)
    for _ in range(count):
        (assignment,) = studio.store.assignments.issue(
            studio.base, who, 1, rng=rng, lifetime=timedelta(hours=1)
        ).result()
        choice = Choice.LEFT if assignment.a_on_left != against else Choice.RIGHT
        studio.store.votes.record(assignment.id, who, choice, 900)
    return who


def planned(studio: TrainingStudio, weighing: VoteWeighing, settings: RoundSettings = FAST) -> RoundPlan:
    token = studio.store.lease.acquire(studio.base, "tests", lease_seconds=60)
    assert token is not None
    current = studio.store.rounds.current(studio.base) or studio.store.rounds.request(studio.base, Trigger.REQUEST)
    state = start_round(
        studio.store, studio.base, current.id, trigger=Trigger.REQUEST, settings=settings, environment={}, token=token,
        weighing=weighing,
    )  # fmt: skip
    return load_plan(studio.store, studio.base, state)


def test_a_hostile_annotators_votes_are_not_trained_on(studio: TrainingStudio) -> None:
    studio.add_pairs(24)
    for _ in range(3):
        vote_as(studio, 24)
    hostile = vote_as(studio, 24, against=True)
    plan = planned(studio, DAWID_SKENE)
    votes = {vote.vote_id: vote for vote in studio.store.votes.training_votes(studio.base)}
    used = {votes[vote_id].annotator_id for vote_id in plan.train_vote_ids}
    assert len(used) == 3
    assert hostile not in used
    assert plan.train.targets.tolist() == pytest.approx([1 - FAST.alpha] * len(plan.train))
    assert plan.held_out is not None
    assert plan.held_out.targets.tolist() == pytest.approx([1 - FAST.alpha] * len(plan.held_out))
    summary = plan.config["weighing"]["summary"]
    assert (summary["annotators"], summary["without_weight"]) == (4, 1)


def test_weights_of_one_leave_targets_and_weights_as_they_are_to_the_last_bit(
    studio: TrainingStudio, tmp_path: Path
) -> None:
    studio.add_pairs(12)
    studio.vote(12)
    twin = twin_of(studio, tmp_path)
    plain, weighed = planned(studio, UNWEIGHED), planned(twin, DAWID_SKENE)
    assert "weighing" not in plain.config
    assert weighed.config["weighing"]["reliability"] == "dawid_skene"
    assert plain.train_vote_ids == weighed.train_vote_ids
    assert torch.equal(plain.train.targets, weighed.train.targets)
    assert torch.equal(plain.train.weights, weighed.train.weights)
    twin.store.close()


def test_a_round_with_weights_of_one_ends_bit_for_bit_where_one_without_weights_does(
    studio: TrainingStudio, denoiser: Denoiser, tmp_path: Path
) -> None:
    studio.add_pairs(12)
    studio.vote(12)
    twin = twin_of(studio, tmp_path)
    two_steps = FAST.model_copy(update={"num_steps": 2})
    for which, weighing in ((studio, UNWEIGHED), (twin, DAWID_SKENE)):
        plan = planned(which, weighing, two_steps)
        token = which.store.lease.acquire(which.base, "tests", lease_seconds=60)
        assert token is not None
        which.run(denoiser, plan.round_id, token)
    assert_equal(weights_of(studio), weights_of(twin))
    twin.store.close()


def test_one_annotator_who_votes_far_more_than_the_others_is_held_to_the_share(studio: TrainingStudio) -> None:
    studio.add_pairs(40)
    busy = vote_as(studio, 40)
    for _ in range(9):
        vote_as(studio, 4)
    plan = planned(studio, VoteWeighing("off", 0.2))
    summary = plan.config["weighing"]["summary"]
    assert summary["largest_share"] == pytest.approx(0.2)
    assert summary["capped"] == 1
    votes = [vote for vote in studio.store.votes.training_votes(studio.base) if vote.vote_id in plan.train_vote_ids]
    others = sum(vote.annotator_id != busy for vote in votes)
    assert float(plan.train.weights.sum()) == pytest.approx(others / 0.8)


def test_the_scheduler_weighs_as_the_settings_say_and_the_manifest_tells(
    studio: TrainingStudio, make_scheduler: MakeScheduler
) -> None:
    studio.add_pairs(12)
    vote_as(studio, 12)
    vote_as(studio, 6)
    scheduler = make_scheduler(labeling=LabelingSettings(reliability="dawid_skene", max_annotator_share=0.5))
    assert scheduler.tick() is Tick.TRAINED
    state = studio.store.rounds.get(1)
    assert state.status is RoundStatus.PUBLISHED
    adapter = studio.store.adapters.get(studio.base, 1)
    recorded = json.loads((adapter.folder / "manifest.json").read_text())["config"]["weighing"]
    assert recorded["reliability"] == "dawid_skene"
    assert recorded["max_annotator_share"] == 0.5
    assert recorded["summary"]["annotators"] == 2


def test_a_crowd_of_newcomers_has_a_tenth_of_the_training_and_of_the_held_out_votes(studio: TrainingStudio) -> None:
    studio.add_pairs(24)
    honest = frozenset(vote_as(studio, 24) for _ in range(3))
    for _ in range(20):
        vote_as(studio, 12, against=True)
    settings = FAST.model_copy(update={"held_out_share": 0.4})
    plan = planned(studio, VoteWeighing("off", 0.05, 0.1, honest), settings)
    votes = {vote.vote_id: vote.annotator_id for vote in studio.store.votes.training_votes(studio.base)}
    assert plan.held_out is not None
    for part, vote_ids in ((plan.train, plan.train_vote_ids), (plan.held_out, plan.held_out_vote_ids)):
        num_honest = sum(votes[vote_id] in honest for vote_id in vote_ids)
        assert num_honest < len(vote_ids) / 2, "they are fewer"
        assert float(part.weights.sum()) == pytest.approx(num_honest / 0.9)
    assert plan.config["weighing"]["established"] == sorted(honest)
    summary = plan.config["weighing"]["summary"]
    assert (summary["newcomers"], summary["newcomers_share"]) == (20, pytest.approx(0.1))


def test_a_round_of_a_public_studio_knows_the_established_by_their_records(studio: TrainingStudio) -> None:
    studio.add_pairs(30)
    for _ in range(2):
        vote_as(studio, 25)
    vote_as(studio, 4)
    newcomers = NewcomerSettings(record_hours=0)
    public = Settings(home=studio.home, public=True, labeling=LabelingSettings(newcomers=newcomers))
    weighing = build_weighing(studio.store, studio.base, public)
    assert (weighing.max_annotator_share, weighing.newcomer_share) == (0.05, 0.1)
    assert weighing.established == {1, 2}
    own = build_weighing(studio.store, studio.base, Settings(home=studio.home, public=False))
    assert own.is_off, "in a studio of one's own every vote counts one"

"""A campaign's votes in rounds: the question that trains, strengths, withdrawn votes and reported pairs."""

import json
import random
from datetime import timedelta

import pytest

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.domain.campaign import ReportReason, ReportRules
from dmpo_app.domain.vote import Choice, Question, Strength
from dmpo_app.objective import graded_win
from dmpo_app.settings import LabelingSettings
from dmpo_app.training.data.dataset import build_dataset
from dmpo_app.training.rounds.scheduler import Tick
from tests.training.scheduler_fixtures import MIN_VOTES, MakeScheduler
from tests.training.training_studio import TrainingStudio

BOTH = (Question.OVERALL, Question.APPEAL)


def judge(studio: TrainingStudio, count: int, strength: Strength | None = None) -> dict[Question, list[int]]:
    """One annotator prefers image a on both questions about `count` pairs; the ids of the votes by question."""
    who = studio.store.annotators.ensure("judge")
    taken: dict[Question, list[int]] = {question: [] for question in BOTH}
    for one in studio.store.assignments.issue(
        studio.base, who.id, 2 * count, rng=random.Random(0), lifetime=timedelta(hours=1), questions=BOTH
    ).result():
        choice = Choice.LEFT if one.a_on_left else Choice.RIGHT
        taken[one.question].append(studio.store.votes.record(one.id, who.id, choice, 500, strength).vote_id)
    return taken


def used_by_version(studio: TrainingStudio, version: int = 1) -> list[int]:
    manifest = json.loads((studio.store.adapters.get(studio.base, version).folder / "manifest.json").read_text())
    return sorted(manifest["train_votes"] + manifest["held_out_votes"])


def test_a_round_learns_from_the_question_that_the_settings_name_and_says_so(
    studio: TrainingStudio, make_scheduler: MakeScheduler
) -> None:
    studio.add_pairs(MIN_VOTES)
    taken = judge(studio, MIN_VOTES)
    labeling = LabelingSettings(questions=BOTH, training_question=Question.APPEAL)
    assert make_scheduler(labeling=labeling).tick() is Tick.TRAINED
    assert studio.store.rounds.get(1).config["question"] == "appeal"
    assert used_by_version(studio) == taken[Question.APPEAL]


def test_votes_on_other_questions_start_no_round(studio: TrainingStudio, make_scheduler: MakeScheduler) -> None:
    studio.add_pairs(MIN_VOTES - 1)
    judge(studio, MIN_VOTES - 1)
    assert make_scheduler().tick() in (Tick.IDLE, Tick.PREPARED)
    assert studio.store.rounds.list(studio.base) == []


@pytest.mark.parametrize("strength", [None, *Strength])
def test_a_slight_preference_asks_for_less_than_a_clear_one(studio: TrainingStudio, strength: Strength | None) -> None:
    studio.add_pairs(1)
    judge(studio, 1, strength)
    votes = studio.store.votes.training_votes(studio.base)
    target = build_dataset(votes, studio.store.files, alpha=0.05).targets.item()
    win = graded_win(1.0, 0.5 if strength is Strength.SLIGHTLY else 1.0)
    assert target == pytest.approx((win * 0.9 + 0.05) / (0.9 + 0.1))


def test_withdrawn_votes_and_reported_pairs_leave_a_round_that_has_begun(
    studio: TrainingStudio, make_scheduler: MakeScheduler, denoiser: Denoiser
) -> None:
    studio.add_pairs(MIN_VOTES)
    votes = judge(studio, MIN_VOTES)[Question.OVERALL]
    stopped = make_scheduler(owner="serve@here", should_stop=iter([False, True, True]).__next__)
    assert stopped.tick() is Tick.STOPPED
    by_vote = {vote.vote_id: vote for vote in studio.store.votes.training_votes(studio.base)}
    withdrawn, reported = votes[0], votes[1]
    judge_id = by_vote[withdrawn].annotator_id
    studio.store.own_votes.withdraw(withdrawn, judge_id)
    second = studio.store.annotators.ensure("second")
    shown = studio.store.assignments.issue(
        studio.base, second.id, MIN_VOTES, rng=random.Random(1), lifetime=timedelta(hours=1)
    ).result()
    at_fault = next(one for one in shown if one.pair_id == by_vote[reported].pair_id)
    studio.store.reports.add(at_fault.id, second.id, ReportReason.BROKEN, None, rules=ReportRules(1))
    assert make_scheduler(owner="serve@here").tick() is Tick.TRAINED
    assert used_by_version(studio) == votes[2:]

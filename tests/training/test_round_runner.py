"""A round from its votes to a published version, whatever happens on the way."""

import json
import os
import random
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.domain.judging import Evidence, Verdict, VerdictAction
from dmpo_app.domain.lineage import RoundStatus
from dmpo_app.domain.verdict import MIN_HELD_OUT_VOTES, GateVerdict
from dmpo_app.domain.vote import Choice
from dmpo_app.errors import LeaseLostError, RoundFailedError
from dmpo_app.training.data.dataset import is_held_out
from dmpo_app.training.data.training_examples import examples_for_step
from dmpo_app.training.loop import trainer
from dmpo_app.training.loop.step import train_step
from dmpo_app.training.monitoring.early_stopping import StepResult
from dmpo_app.training.rounds.round_plan import load_plan
from dmpo_app.training.rounds.round_runner import RoundRunner, SliceOutcome, round_folder
from tests.model_fixtures import NUM_THREADS
from tests.patience import PATIENCE
from tests.preloaded_process import PreloadedPython
from tests.tolerance import LOSS_RELATIVE
from tests.training.training_studio import (
    FAST,
    TrainingStudio,
    assert_equal,
    only_single_pairs_fit,
    twin_of,
    weights_of,
)

ONE_STEP = 0.0
"""A slice's budget that is over after its first step."""


@pytest.fixture
def voted(studio: TrainingStudio) -> TrainingStudio:
    """12 votes: most train, some are held out."""
    studio.add_pairs(12)
    studio.vote(12)
    return studio


def test_a_round_publishes_a_version_and_makes_it_live(voted: TrainingStudio, denoiser: Denoiser) -> None:
    round_id, token = voted.start()
    assert voted.run(denoiser, round_id, token) is SliceOutcome.FINISHED
    state = voted.store.rounds.get(round_id)
    assert state.status is RoundStatus.PUBLISHED
    assert state.step == state.steps == FAST.num_steps
    assert voted.store.adapters.live_version(voted.base) == state.adapter_version == 1
    assert not round_folder(voted.home, round_id).exists()


def test_the_published_files_say_what_they_were_made_of_and_load_in_plain_diffusers(
    voted: TrainingStudio, denoiser: Denoiser
) -> None:
    round_id, token = voted.start()
    voted.run(denoiser, round_id, token)
    adapter = voted.store.adapters.get(voted.base, 1)
    manifest = json.loads((adapter.folder / "manifest.json").read_text())
    votes = dict(voted.store.rounds.votes(round_id))
    assert sorted(manifest["train_votes"]) == [vote for vote, held_out in votes.items() if not held_out]
    assert sorted(manifest["held_out_votes"]) == [vote for vote, held_out in votes.items() if held_out]
    assert voted.store.adapters.vote_ids(voted.base, 1) == sorted(manifest["train_votes"])
    assert manifest["base_model"]["fingerprint"] == voted.base.fingerprint
    assert manifest["parent"] == 0
    assert manifest["round"] == round_id
    assert manifest["seed"] == voted.store.rounds.get(round_id).seed
    assert manifest["config"]["settings"] == FAST.model_dump(mode="json")
    assert manifest["num_threads"] == NUM_THREADS
    assert manifest["weights_sha256"] == adapter.sha256
    assert {"torch", "diffusers", "peft"} <= manifest["libraries"].keys()
    pipeline = StableDiffusionPipeline.from_pretrained(voted.source)
    pipeline.load_lora_weights(adapter.folder)
    assert pipeline.get_active_adapters()


def test_progress_is_recorded_from_an_undecided_start_to_the_last_step(
    voted: TrainingStudio, denoiser: Denoiser
) -> None:
    round_id, token = voted.start()
    voted.run(denoiser, round_id, token)
    points = voted.store.rounds.list_progress(round_id)
    assert points[0].step == 1
    assert points[0].margin == 0
    assert points[-1].step == FAST.num_steps
    assert points[-1].eta_seconds == 0
    held_out = [point.step for point in points if point.held_out_loss is not None]
    assert held_out == [2, 4, 6]


def test_the_same_seed_gives_the_same_weights(voted: TrainingStudio, denoiser: Denoiser, tmp_path: Path) -> None:
    round_id, token = voted.start()
    voted.run(denoiser, round_id, token)
    twin = twin_of(voted, tmp_path)
    round_id, token = twin.start()
    twin.run(denoiser, round_id, token)
    assert_equal(weights_of(voted), weights_of(twin))
    twin.store.close()


def test_another_seed_gives_other_weights(voted: TrainingStudio, denoiser: Denoiser, tmp_path: Path) -> None:
    round_id, token = voted.start()
    voted.run(denoiser, round_id, token)
    twin = twin_of(voted, tmp_path)
    round_id, token = twin.start(settings=FAST.model_copy(update={"seed": 1, "held_out_share": 0.0}))
    twin.run(denoiser, round_id, token)
    assert not all(
        torch.equal(a, b) for a, b in zip(weights_of(voted).values(), weights_of(twin).values(), strict=True)
    )
    twin.store.close()


def test_a_round_cut_into_slices_ends_bit_for_bit_where_an_uninterrupted_one_does(
    voted: TrainingStudio, denoiser: Denoiser, tmp_path: Path
) -> None:
    round_id, token = voted.start()
    voted.run(denoiser, round_id, token)
    twin = twin_of(voted, tmp_path)
    round_id, token = twin.start()
    for step in range(1, FAST.num_steps):
        assert twin.run(denoiser, round_id, token, slices=[ONE_STEP]) is SliceOutcome.MORE
        assert round_folder(twin.home, round_id).exists(), step
    assert twin.run(denoiser, round_id, token, slices=[ONE_STEP]) is SliceOutcome.FINISHED
    assert_equal(weights_of(voted), weights_of(twin))
    twin.store.close()


def test_a_round_resumed_by_a_fresh_process_ends_bit_for_bit_where_an_uninterrupted_one_does(
    voted: TrainingStudio, denoiser: Denoiser, tmp_path: Path
) -> None:
    round_id, token = voted.start()
    voted.run(denoiser, round_id, token)
    twin = twin_of(voted, tmp_path)
    round_id, token = twin.start()
    twin.run(denoiser, round_id, token, slices=[ONE_STEP, ONE_STEP, ONE_STEP])
    arguments, log = [str(twin.home), str(twin.source), str(round_id), str(token)], tmp_path / "log"
    fresh = PreloadedPython("tests.training.resume_round", arguments, environment=os.environ, stdout=log, stderr=log)
    assert fresh.wait(PATIENCE) == 0, log.read_text()
    assert_equal(weights_of(voted), weights_of(twin))
    twin.store.close()


def test_a_damaged_checkpoint_costs_the_progress_and_not_the_round(
    voted: TrainingStudio, denoiser: Denoiser, tmp_path: Path
) -> None:
    round_id, token = voted.start()
    voted.run(denoiser, round_id, token, slices=[ONE_STEP, ONE_STEP])
    path = round_folder(voted.home, round_id) / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert voted.run(denoiser, round_id, token) is SliceOutcome.FINISHED
    twin = twin_of(voted, tmp_path)
    round_id, token = twin.start()
    twin.run(denoiser, round_id, token)
    assert_equal(weights_of(voted), weights_of(twin))
    twin.store.close()


def test_a_checkpoint_of_a_release_without_the_yardstick_is_gone_on_from(
    voted: TrainingStudio, denoiser: Denoiser
) -> None:
    round_id, token = voted.start()
    voted.run(denoiser, round_id, token, slices=[ONE_STEP])
    path = round_folder(voted.home, round_id) / "checkpoint.safetensors"
    with safe_open(path, framework="pt") as file:
        state = json.loads(file.metadata()["state"])
    del state["live"]["voted_probability"], state["live"]["margins"]
    path.write_bytes(save(load_file(path), {"state": json.dumps(state)}))
    assert voted.run(denoiser, round_id, token, slices=[ONE_STEP]) is SliceOutcome.MORE
    assert voted.store.rounds.get(round_id).step == 2
    assert voted.run(denoiser, round_id, token) is SliceOutcome.FINISHED
    assert "gate_outcome" in voted.store.adapters.get(voted.base, 1).metrics, "the live version was evaluated anew"


def test_told_to_stop_it_checkpoints_and_somebody_resumes(voted: TrainingStudio, denoiser: Denoiser) -> None:
    round_id, token = voted.start()
    asked = iter([False, False, True])
    runner = RoundRunner(
        voted.store,
        voted.base,
        denoiser,
        voted.store.rounds.get(round_id),
        token=token,
        should_stop=lambda: next(asked),
    )
    assert runner.run_slice() is SliceOutcome.STOPPED
    runner.close()
    assert runner.step == 2
    assert voted.store.rounds.get(round_id).status is RoundStatus.RUNNING
    resumed = RoundRunner(voted.store, voted.base, denoiser, voted.store.rounds.get(round_id), token=token)
    assert resumed.step == 2
    resumed.close()


def test_a_vote_taken_back_before_a_resume_is_not_trained_on(voted: TrainingStudio, denoiser: Denoiser) -> None:
    round_id, token = voted.start()
    voted.run(denoiser, round_id, token, slices=[ONE_STEP])
    votes = dict(voted.store.rounds.votes(round_id))
    last = max(votes)
    annotator = next(vote for vote in voted.store.votes.training_votes(voted.base) if vote.vote_id == last).annotator_id
    voted.store.votes.undo(last, annotator)
    voted.run(denoiser, round_id, token)
    manifest = json.loads((voted.store.adapters.get(voted.base, 1).folder / "manifest.json").read_text())
    used = manifest["train_votes"] + manifest["held_out_votes"]
    assert sorted(used) == [vote for vote in votes if vote != last]


def test_a_round_that_diverges_fails_and_leaves_what_is_live(voted: TrainingStudio, denoiser: Denoiser) -> None:
    first, token = voted.start()
    voted.run(denoiser, first, token)
    voted.add_pairs(4)
    voted.vote(4)
    diverging = FAST.model_copy(update={"learning_rate": 1.0, "beta": 1e38})
    second, token = voted.start(settings=diverging, token=token)
    with pytest.raises(RoundFailedError, match="diverged"):
        voted.run(denoiser, second, token)
    assert voted.store.adapters.live_version(voted.base) == 1
    assert len(voted.store.adapters.list(voted.base)) == 1


def test_out_of_memory_goes_on_in_smaller_pieces(
    voted: TrainingStudio, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = only_single_pairs_fit(monkeypatch)
    round_id, token = voted.start()
    assert voted.run(denoiser, round_id, token) is SliceOutcome.FINISHED
    assert sizes == [4, 2, 1, 1, 1, 1, 1, 1]


def test_when_a_single_pair_does_not_fit_activations_are_computed_twice(
    voted: TrainingStudio, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_without_kept_activations(*arguments: Any, **named: Any) -> StepResult:
        if not denoiser.module.is_gradient_checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train_step(*arguments, **named)

    monkeypatch.setattr(trainer, "train_step", only_without_kept_activations)
    round_id, token = voted.start()
    assert voted.run(denoiser, round_id, token) is SliceOutcome.FINISHED
    assert not denoiser.module.is_gradient_checkpointing, "the next round finds the denoiser as it was"


def test_out_of_memory_with_a_single_pair_fails_with_what_to_do(
    voted: TrainingStudio, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_fits(*_: Any, **__: Any) -> NoReturn:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "train_step", nothing_fits)
    round_id, token = voted.start()
    with pytest.raises(RoundFailedError, match=r"out of memory.*DMPO_ROUND__RANK"):
        voted.run(denoiser, round_id, token)


def test_few_held_out_votes_publish_a_version_that_is_not_yet_proven(voted: TrainingStudio, denoiser: Denoiser) -> None:
    round_id, token = voted.start()
    voted.run(denoiser, round_id, token)
    adapter = voted.store.adapters.get(voted.base, 1)
    assert 0 < adapter.metrics["held_out_votes"] < MIN_HELD_OUT_VOTES
    assert not adapter.proven
    verdict = GateVerdict.from_metrics(adapter.metrics)
    assert verdict is not None
    assert verdict.outcome is Verdict.UNSURE
    assert "too few votes" in verdict.sentence


def test_a_round_is_refused_when_many_held_out_votes_say_the_opposite(
    studio: TrainingStudio, denoiser: Denoiser
) -> None:
    votes_against_on_held_out_prompts(studio, 48)
    round_id, token = studio.start(settings=LONGER)
    assert studio.run(denoiser, round_id, token) is SliceOutcome.FINISHED
    state = studio.store.rounds.get(round_id)
    assert state.status is RoundStatus.REFUSED
    assert "worse than the base model by the held-out votes: it agrees with" in (state.reason or "")
    assert studio.store.adapters.live_version(studio.base) == 0
    assert studio.store.adapters.list(studio.base) == []


def test_a_round_that_held_out_votes_support_is_published_as_proven_and_goes_live_also_if_held_back(
    studio: TrainingStudio, denoiser: Denoiser
) -> None:
    studio.add_pairs(90)
    studio.vote(90)
    round_id, token = studio.start(settings=LONGER)
    studio.run(denoiser, round_id, token, is_held=True)
    adapter = studio.store.adapters.get(studio.base, 1)
    assert adapter.metrics["held_out_votes"] >= MIN_HELD_OUT_VOTES
    assert adapter.proven
    points = studio.store.rounds.list_progress(round_id)
    scores = {one.step: one.health["held_out_probability"] for one in points if one.held_out_loss is not None}
    assert len(scores) == 2
    assert adapter.metrics["step"] == max(scores, key=lambda step: scores[step])
    assert adapter.metrics["held_out_probability"] == pytest.approx(max(scores.values()))
    assert adapter.metrics["held_out_probability"] > adapter.metrics["live_held_out_probability"] == 0.5
    verdict = GateVerdict.from_metrics(adapter.metrics)
    assert verdict is not None
    assert verdict.outcome is Verdict.BETTER
    assert verdict.num_votes == adapter.metrics["held_out_votes"]
    assert verdict.agreement > verdict.live_agreement == 0.5
    assert (adapter.is_held, studio.store.adapters.live_version(studio.base)) == (False, 1)
    recorded = studio.store.verdicts.latest(studio.base, 1)
    assert recorded is not None
    assert (recorded.other_version, recorded.evidence) == (0, Evidence.HELD_OUT)
    assert (recorded.action, recorded.numbers["sentence"]) == (VerdictAction.PROMOTED, verdict.sentence)


def test_the_second_round_is_measured_against_the_first_and_not_against_the_base(
    studio: TrainingStudio, denoiser: Denoiser
) -> None:
    studio.add_pairs(40)
    studio.vote(40)
    first, token = studio.start(settings=LONGER)
    studio.run(denoiser, first, token)
    second, token = studio.start(settings=LONGER, token=token)
    studio.run(denoiser, second, token)
    versions = studio.store.adapters.list(studio.base)
    assert [version.parent for version in versions] == [0, 1]
    of_the_first = pytest.approx(versions[0].metrics["held_out_loss"], rel=LOSS_RELATIVE)
    assert versions[1].metrics["live_held_out_loss"] == of_the_first
    assert versions[0].metrics["live_held_out_loss"] != of_the_first, "the base model's loss is another"


def test_a_warm_start_begins_where_the_live_version_is(studio: TrainingStudio, denoiser: Denoiser) -> None:
    studio.add_pairs(20)
    studio.vote(20)
    first, token = studio.start(settings=LONGER)
    studio.run(denoiser, first, token)
    still = LONGER.model_copy(update={"warm_start": True, "learning_rate": 1e-12, "num_steps": 1})
    second, token = studio.start(settings=still, token=token)
    studio.run(denoiser, second, token)
    for ours, live in zip(weights_of(studio, 2).values(), weights_of(studio, 1).values(), strict=True):
        torch.testing.assert_close(ours, live, rtol=0, atol=1e-9)


def test_a_live_version_whose_files_are_gone_does_not_stop_the_next_round(
    voted: TrainingStudio, denoiser: Denoiser
) -> None:
    first, token = voted.start()
    voted.run(denoiser, first, token)
    (voted.store.adapters.get(voted.base, 1).folder / "pytorch_lora_weights.safetensors").unlink()
    second, token = voted.start(token=token)
    assert voted.run(denoiser, second, token) is SliceOutcome.FINISHED
    assert "live_held_out_loss" not in voted.store.adapters.get(voted.base, 2).metrics


def test_a_trainer_that_lost_its_lease_publishes_nothing(voted: TrainingStudio, denoiser: Denoiser) -> None:
    round_id, stale = voted.start()
    state = voted.store.rounds.get(round_id)
    runner = RoundRunner(voted.store, voted.base, denoiser, state, token=stale)
    voted.store.lease.release(voted.base, stale)
    fresh = voted.store.lease.acquire(voted.base, "another trainer", lease_seconds=60)
    with pytest.raises(LeaseLostError):
        runner.run_slice()
    runner.close()
    assert voted.store.adapters.list(voted.base) == []
    assert fresh is not None
    assert voted.run(denoiser, round_id, fresh) is SliceOutcome.FINISHED
    assert len(voted.store.adapters.list(voted.base)) == 1


def test_a_round_computes_its_references_in_full_batches(voted: TrainingStudio, denoiser: Denoiser) -> None:
    passes = 0

    def note(*_: Any) -> None:
        nonlocal passes
        passes += 1

    settings = FAST.model_copy(update={"held_out_share": 0.0, "num_steps": 12})
    round_id, token = voted.start(settings=settings)
    plan = load_plan(voted.store, voted.base, voted.store.rounds.get(round_id))
    steps = [
        examples_for_step(step, num_pairs=12, batch_pairs=4, num_slots=8, seed=plan.seed)
        for step in range(settings.num_steps)
    ]
    distinct = {draw for draws in steps for draw in draws}
    denoiser.module.register_forward_hook(note)
    voted.run(denoiser, round_id, token)
    assert passes == settings.num_steps + -(-len(distinct) // settings.batch_pairs)


def test_the_next_round_finds_the_references_of_the_last(voted: TrainingStudio, denoiser: Denoiser) -> None:
    def passes_of_a_round(token: int | None) -> tuple[int, int]:
        passes = 0

        def note(*_: Any) -> None:
            nonlocal passes
            passes += 1

        handle = denoiser.module.register_forward_hook(note)
        round_id, token = voted.start(token=token, settings=FAST.model_copy(update={"slots_per_pair": 1}))
        voted.run(denoiser, round_id, token)
        handle.remove()
        return passes, token

    first, token = passes_of_a_round(None)
    second, _ = passes_of_a_round(token)
    held_out_batches = 1
    # The second round has to look at its parent, and has nothing else to do that the first had not.
    assert second < first + held_out_batches


LONGER = FAST.model_copy(
    update={"num_steps": 16, "batch_pairs": 8, "evaluate_every": 8, "learning_rate": 5e-3, "held_out_share": 0.5}
)


def votes_against_on_held_out_prompts(studio: TrainingStudio, count: int) -> None:
    """Votes for image a on prompts that are trained on, and for image b on those that are held out."""
    studio.add_pairs(2 * count)
    annotator = studio.store.annotators.ensure("contrarian")
    for assignment in studio.store.assignments.issue(
        studio.base, annotator.id, 2 * count, rng=random.Random(0), lifetime=timedelta(hours=1)
    ).result():
        held_out = is_held_out(assignment.prompt, share=LONGER.held_out_share, seed=LONGER.seed)
        choice = Choice.LEFT if assignment.a_on_left != held_out else Choice.RIGHT
        studio.store.votes.record(assignment.id, annotator.id, choice, 500)

"""Limits: which stops a round, when, and what becomes of it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.domain.lineage import RoundStatus
from dmpo_app.settings import RoundLimitSettings, RoundSettings
from dmpo_app.training.monitoring.early_stopping import EarlyStopMonitor, PairHealth, StepResult, VoteAgreement
from dmpo_app.training.monitoring.latent_preview import LatentPreview
from dmpo_app.training.rounds.round_runner import RoundRunner, SliceOutcome
from tests.training.training_studio import FAST, TrainingStudio

NO_LIMITS = RoundLimitSettings.model_validate(
    {name: None for name, field in RoundLimitSettings.model_fields.items() if field.annotation is not int}
    | {"grad_norm_steps": 5, "chosen_gain_looks": 2}
)
WATCHED = FAST.model_copy(update={"health_images": 4, "limits": NO_LIMITS})
RESULT = StepResult(0.7, VoteAgreement(), PairHealth(0.1, 0.1, 1.0, 0, 1), grad_norm=1.0, adapter_rms=1e-3)
NAN = float("nan")


def limits(**wanted: Any) -> RoundLimitSettings:
    return NO_LIMITS.model_copy(update=wanted)


@pytest.fixture
def voted(studio: TrainingStudio) -> TrainingStudio:
    studio.add_pairs(12)
    studio.vote(12)
    return studio


def test_a_gradient_must_be_too_large_for_several_steps_running() -> None:
    allowed, watch = limits(grad_norm=10.0, grad_norm_steps=3), EarlyStopMonitor()
    for step, norm in enumerate([50, 50, 5, 50, 50], start=1):
        watch = watch.after_step(step, replace(RESULT, grad_norm=norm), allowed)
    assert watch.violation is None
    watch = watch.after_step(6, replace(RESULT, grad_norm=70.0), allowed)
    assert watch.violation is not None
    assert (watch.violation.name, watch.violation.step, watch.violation.value, watch.violation.bound) == (
        "grad_norm",
        6,
        70,
        10,
    )


def test_an_adapter_that_grows_too_large_ends_the_round_at_once() -> None:
    watch = EarlyStopMonitor().after_step(7, replace(RESULT, adapter_rms=0.5), limits(adapter_rms=0.02))
    assert str(watch.violation) == (
        "stopped at step 7: the root mean square of what the adapter adds to its layers' outputs is 0.5, the limit is "
        "0.02 (DMPO_ROUND__LIMITS__ADAPTER_RMS)"
    )


def test_preferred_images_must_be_restored_worse_at_several_looks_running() -> None:
    allowed, watch = limits(min_chosen_gain=-0.5, chosen_gain_looks=2), EarlyStopMonitor()
    for gain, is_over in ((-0.6, False), (0.1, False), (-0.6, False), (-0.7, True)):
        for step in (1, 2):
            watch = watch.after_step(step, replace(RESULT, pairs=PairHealth(gain, 0, 1.0, 0, 1)), allowed)
        watch = watch.after_evaluation(2, {}, allowed)
        assert (watch.violation is not None) is is_over
    assert watch.violation is not None
    assert watch.violation.name == "min_chosen_gain"
    assert watch.violation.value == pytest.approx(-0.7)


@pytest.mark.parametrize(
    ("name", "drift"),
    [
        ("min_saturation", {"saturation": 0.1}),
        ("max_saturation", {"saturation": 4.0}),
        ("min_contrast", {"saturation": 1.0, "contrast": 0.1}),
        ("max_contrast", {"contrast": 4.0}),
        ("min_sharpness", {"sharpness": 0.1}),
        ("max_sharpness", {"sharpness": 4.0}),
        ("min_diversity", {"diversity": 0.1}),
    ],
)
def test_images_that_drift_past_a_bound_say_which(name: str, drift: Mapping[str, float]) -> None:
    usual = RoundLimitSettings()
    watch = EarlyStopMonitor().after_evaluation(20, drift, usual)
    assert watch.violation is not None
    assert watch.violation.name == name
    assert watch.violation.bound == getattr(usual, name)
    assert EarlyStopMonitor().after_evaluation(20, drift, limits()).violation is None, "None switches a limit off"
    assert EarlyStopMonitor().after_evaluation(20, dict.fromkeys(drift, 1.0), usual).violation is None


def test_images_may_become_more_diverse() -> None:
    assert EarlyStopMonitor().after_evaluation(20, {"diversity": 30.0}, RoundLimitSettings()).violation is None


def test_what_is_not_a_number_passes_every_limit_on_it() -> None:
    usual = RoundLimitSettings()
    for watch in (
        EarlyStopMonitor().after_evaluation(20, {"contrast": NAN}, usual),
        EarlyStopMonitor().after_step(1, replace(RESULT, adapter_rms=NAN), usual),
    ):
        assert watch.violation is not None
        assert watch.violation.value is None
        assert "not a finite number" in str(watch.violation)


def test_a_checkpoint_holds_the_watch_as_it_was() -> None:
    watch = EarlyStopMonitor().after_step(3, replace(RESULT, grad_norm=1e9), RoundLimitSettings())
    passed = watch.after_evaluation(4, {"contrast": 9.0}, RoundLimitSettings())
    for one in (watch, passed):
        assert EarlyStopMonitor.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_limits_do_not_fire_on_a_fresh_adapter() -> None:
    watch = EarlyStopMonitor().after_step(1, replace(RESULT, adapter_rms=0.0), RoundLimitSettings())
    ones = dict.fromkeys(("saturation", "contrast", "sharpness", "diversity"), 1.0)
    assert watch.after_evaluation(1, ones, RoundLimitSettings()).violation is None


def drift_from(step_of: Mapping[int, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks one after another see these ratios of contrast, and 1 before."""
    looks = iter(range(1, 100))
    monkeypatch.setattr(LatentPreview, "drift", lambda *_, **__: {"contrast": step_of.get(next(looks), 1.0)})


def test_a_round_whose_images_diverge_is_stopped_and_publishes_what_was_best_before(
    voted: TrainingStudio, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    drift_from({2: 9.0}, monkeypatch)
    settings = WATCHED.model_copy(update={"limits": limits(max_contrast=2.0)})
    round_id, token = voted.start(settings=settings)
    assert voted.run(denoiser, round_id, token) is SliceOutcome.FINISHED
    state = voted.store.rounds.get(round_id)
    assert state.status is RoundStatus.PUBLISHED
    assert state.step == 4
    assert state.reason == (
        "stopped at step 4: over the base model's, the contrast of its images is 9, the limit is 2 "
        "(DMPO_ROUND__LIMITS__MAX_CONTRAST); published from step 2"
    )
    adapter = voted.store.adapters.get(voted.base, 1)
    assert adapter.metrics["step"] == 2
    assert adapter.metrics["stopped_at_step"] == 4
    assert (adapter.metrics["stopped_max_contrast"], adapter.metrics["limit_max_contrast"]) == (9, 2)
    assert json.loads((adapter.folder / "manifest.json").read_text())["stopped"] == state.reason
    assert voted.store.rounds.list_progress(round_id)[-1].health["contrast"] == 9


def test_without_held_out_votes_the_latest_state_within_the_limits_is_published(
    voted: TrainingStudio, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    drift_from({3: 0.1}, monkeypatch)
    settings = WATCHED.model_copy(update={"limits": limits(min_contrast=0.5), "held_out_share": 0.0})
    round_id, token = voted.start(settings=settings)
    voted.run(denoiser, round_id, token)
    assert voted.store.adapters.get(voted.base, 1).metrics["step"] == 4


def test_a_round_that_was_never_within_its_limits_is_refused_and_the_live_version_stays(
    voted: TrainingStudio, denoiser: Denoiser
) -> None:
    first, token = voted.start(settings=WATCHED)
    voted.run(denoiser, first, token)
    settings = WATCHED.model_copy(update={"limits": limits(adapter_rms=1e-9)})
    second, token = voted.start(settings=settings, token=token)
    assert voted.run(denoiser, second, token) is SliceOutcome.FINISHED
    state = voted.store.rounds.get(second)
    assert state.status is RoundStatus.REFUSED
    assert state.step == 1
    assert (state.reason or "").startswith("stopped at step 1: the root mean square")
    assert "no evaluation before that" in (state.reason or "")
    assert voted.store.adapters.live_version(voted.base) == 1
    assert len(voted.store.adapters.list(voted.base)) == 1


def test_a_ruinous_learning_rate_is_stopped_by_the_usual_limits(voted: TrainingStudio, denoiser: Denoiser) -> None:
    settings = FAST.model_copy(update={"learning_rate": 0.3, "num_steps": 40, "health_images": 4})
    round_id, token = voted.start(settings=settings)
    voted.run(denoiser, round_id, token)
    state = voted.store.rounds.get(round_id)
    assert state.step < 40
    assert "DMPO_ROUND__LIMITS__" in (state.reason or "")


def test_killed_between_the_limit_and_the_end_the_round_ends_without_another_step(
    voted: TrainingStudio, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """The end of the process."""

    def dies(_: RoundRunner) -> None:
        raise Killed

    settings = WATCHED.model_copy(update={"limits": limits(adapter_rms=1e-9)})
    round_id, token = voted.start(settings=settings)
    with monkeypatch.context() as patched:
        patched.setattr(RoundRunner, "_finish", dies)
        with pytest.raises(Killed):
            voted.run(denoiser, round_id, token)
    assert voted.run(denoiser, round_id, token) is SliceOutcome.FINISHED
    state = voted.store.rounds.get(round_id)
    assert (state.status, state.step) == (RoundStatus.REFUSED, 1)


@pytest.mark.parametrize("slices", [(600.0,), (0.0,) * 6], ids=["in one go", "resumed after each step"])
def test_watching_images_changes_no_bit_of_what_is_trained(
    voted: TrainingStudio, denoiser: Denoiser, tmp_path: Path, slices: tuple[float, ...]
) -> None:
    twin = TrainingStudio.open(tmp_path / "twin", voted.source)
    twin.add_pairs(12)
    twin.vote(12)
    trained = []
    for studio, settings, how in ((voted, FAST, (600.0,)), (twin, WATCHED, slices)):
        round_id, token = studio.start(settings=settings)
        assert studio.run(denoiser, round_id, token, slices=how) is SliceOutcome.FINISHED
        folder = studio.store.adapters.get(studio.base, 1).folder
        trained.append(load_file(folder / "pytorch_lora_weights.safetensors"))
    twin.store.close()
    assert trained[0].keys() == trained[1].keys()
    assert all(torch.equal(trained[0][key], trained[1][key]) for key in trained[0])


def test_pairs_whose_images_are_gone_are_trained_on_without_watching(voted: TrainingStudio, denoiser: Denoiser) -> None:
    for path in (voted.home / "images").rglob("*.png"):
        path.unlink()
    round_id, token = voted.start(settings=WATCHED)
    assert voted.run(denoiser, round_id, token) is SliceOutcome.FINISHED
    assert not {"contrast"} & voted.store.rounds.list_progress(round_id)[-1].health.keys()


def test_an_odd_number_of_images_is_refused() -> None:
    with pytest.raises(ValueError, match="health_images"):
        RoundSettings(health_images=3)

"""Pairs made by the engine, voted on, trained on, and the version shown before and after: in any family."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dmpo_app.diffusion.loading import load_denoiser
from dmpo_app.domain.lineage import RenderRequest
from dmpo_app.rendering.engine import Engine
from dmpo_app.rendering.pool import PairPlan
from dmpo_app.settings import RenderSettings, RoundSettings, Settings
from dmpo_app.training.rounds.round_runner import SliceOutcome
from tests.tiny_models.cases import Case, one_a_family
from tests.training.training_studio import FAST, TrainingStudio

ROUND: RoundSettings = FAST.model_copy(update={"num_steps": 2, "held_out_share": 0.0, "target_modules": "auto"})


@pytest.fixture
def voted(tmp_path: Path, folder: Path) -> Iterator[TrainingStudio]:
    studio = TrainingStudio.open(tmp_path / "home", folder)
    yield studio
    studio.store.close()


def engine_of(studio: TrainingStudio, case: Case) -> Engine:
    render = RenderSettings(num_steps=2, resolution=case.resolution, device="cpu", dtype="float32")
    settings = Settings(home=studio.home, base_model=str(studio.source), render=render, round=ROUND)
    return Engine.load(studio.store, studio.base, settings)


@one_a_family
def test_pairs_are_made_voted_on_trained_on_and_the_version_is_shown(case: Case, voted: TrainingStudio) -> None:
    engine = engine_of(voted, case)
    for number, prompt in enumerate(("a red fox", "a blue whale", "a green frog")):
        assert engine.make_pair(PairPlan(prompt, (2 * number, 2 * number + 1)), lambda: False)
    voted.vote(3)
    denoiser = load_denoiser(str(voted.source), device="cpu", dtype="float32")
    round_id, token = voted.start(settings=ROUND)
    assert voted.run(denoiser, round_id, token) is SliceOutcome.FINISHED
    engine.sync_live_version()
    assert (engine.live_version, engine.problem) == (1, "")
    made = engine.render(RenderRequest("a red fox", 5, (0, 1), 1.0), lambda: False)
    assert [image.version for image in made] == [0, 1]
    assert made[0].image.sha256 != made[1].image.sha256

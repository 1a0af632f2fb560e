"""A scheduler on the tests' studio, with a clock that can be put forward; conftest imports the fixtures."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.settings import JudgingSettings, LabelingSettings, ScoringSettings, Settings, TrainerSettings
from dmpo_app.training.rounds.scheduler import RoundScheduler
from tests.training.training_studio import FAST, TrainingStudio

MIN_VOTES = 8
NO_SCORERS = ScoringSettings()
PLAIN_CAMPAIGN = LabelingSettings()
PUBLISH = JudgingSettings()
MakeScheduler = Callable[..., RoundScheduler]


class Clock:
    """Real time plus what a test adds: the store keeps its own, so only differences are played with."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def advance(self, **by: float) -> None:
        self.ahead += timedelta(**by)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_scheduler(studio: TrainingStudio, denoiser: Denoiser, clock: Clock) -> MakeScheduler:
    def make(
        *,
        owner: str = "tests",
        should_stop: Callable[[], bool] = lambda: False,
        beta: float | None = FAST.beta,
        scoring: ScoringSettings = NO_SCORERS,
        labeling: LabelingSettings = PLAIN_CAMPAIGN,
        judging: JudgingSettings = PUBLISH,
        hang: str = "",
        **trainer: Any,
    ) -> RoundScheduler:
        settings = Settings(
            home=studio.home,
            base_model=str(studio.source),
            min_votes=MIN_VOTES,
            labeling=labeling,
            judging=judging,
            round=FAST.model_copy(update={"num_steps": 3, "beta": beta, "scoring": scoring}),
            trainer=TrainerSettings(**{"period_min_votes": 3, "period_minutes": 30.0, **trainer}),
        )
        return RoundScheduler(
            studio.store, studio.base, settings, denoiser, owner=owner, now=clock, should_stop=should_stop, hang=hang
        )

    return make

"""Margins of unjudged pairs, for annotators to be shown what the policy is least sure of."""

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.settings import LabelingSettings
from dmpo_app.training.reference.prefetch import MarginPrefetcher
from dmpo_app.training.rounds.scheduler import Tick
from tests.store.store_data import scalar
from tests.training.scheduler_fixtures import MIN_VOTES, MakeScheduler
from tests.training.training_studio import FAST, TrainingStudio


def test_the_base_model_prefers_nothing_and_a_version_is_asked_about_every_unjudged_pair(
    studio: TrainingStudio, denoiser: Denoiser, make_scheduler: MakeScheduler
) -> None:
    studio.add_pairs(MIN_VOTES + 6)
    margins = MarginPrefetcher(studio.store, studio.base, denoiser, FAST)
    assert not margins.fill()
    studio.vote(MIN_VOTES)
    scheduler = make_scheduler(labeling=LabelingSettings(strategy="uncertainty"))
    assert scheduler.tick() is Tick.TRAINED
    while scheduler.tick() is Tick.PREPARED:
        pass
    assert scalar(studio.store, "SELECT count(*) FROM pair_margins WHERE adapter_version = 1 AND margin <> 0") == 6
    assert studio.store.pair_margins.list_missing(studio.base, 1, limit=9) == []
    assert not margins.fill()
    assert not [name for name, _ in denoiser.module.named_parameters() if "lora" in name], "the denoiser is as it was"
    scheduler.close()


def test_margins_are_computed_only_where_they_are_wanted(studio: TrainingStudio, make_scheduler: MakeScheduler) -> None:
    studio.add_pairs(MIN_VOTES + 2)
    studio.vote(MIN_VOTES)
    scheduler = make_scheduler()
    assert scheduler.tick() is Tick.TRAINED
    while scheduler.tick() is Tick.PREPARED:
        pass
    assert scalar(studio.store, "SELECT count(*) FROM pair_margins") == 0
    scheduler.close()

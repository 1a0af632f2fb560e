"""The strategies by name, and what the settings make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dmpo_app.domain.pair_choice import Offering, Strategy
from dmpo_app.labeling.strategies.by_coverage import ByCoverage
from dmpo_app.labeling.strategies.by_disagreement import ByDisagreement
from dmpo_app.labeling.strategies.by_rating import ByRating
from dmpo_app.labeling.strategies.by_uncertainty import ByUncertainty
from dmpo_app.labeling.strategies.overlapping import Overlapping
from dmpo_app.labeling.strategies.shuffled import Shuffled
from dmpo_app.settings import LabelingSettings

STRATEGIES: Mapping[str, Callable[[LabelingSettings], Strategy | None]] = {
    "fresh": lambda _: None,  # the store's own order
    "overlap": lambda settings: Overlapping(settings.overlap_every, settings.overlap_people),
    "uncertainty": lambda _: ByUncertainty(),
    "scorers": lambda _: ByDisagreement(),
    "coverage": lambda _: ByCoverage(),
    "ratings": lambda _: ByRating(),
    "random": lambda _: Shuffled(),
}


def offering_of(settings: LabelingSettings) -> Offering:
    """How pairs are chosen under these settings."""
    return Offering(
        strategy=STRATEGIES[settings.strategy](settings),
        showings_per_pair=settings.showings_per_pair,
        gold_rate=settings.gold_rate,
        repeat_rate=settings.repeat_rate,
        repeat_after=settings.repeat_after,
        num_images=settings.num_images,
    )

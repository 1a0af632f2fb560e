"""Effects of new versions, measured in the background between everything else.

A version is compared with the one it was trained from and with the base model: images of held-out prompts, the same
prompts and seeds and the same batches for all versions, then their measures, then the statistics. One step is one row
of images or one batch of measures, so that requests can come in between. All that is made is stored, so a studio that
was stopped goes on where it was.
"""

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from dmpo_app.domain.effects import EffectMeasure, VersionComparison
from dmpo_app.domain.lineage import BASE_VERSION, BaseModelRef, ImageKind, ImageRef, Provenance
from dmpo_app.errors import AdapterError, BadInputError, DamagedFileError, NotFoundError, StudioError
from dmpo_app.judging.effects import ImageChanges, measure_effects
from dmpo_app.rendering.pool import SheetPlan, spread
from dmpo_app.scoring.effect_measures import VARIETY, EffectScorer, PixelEffects, image_distance, variety
from dmpo_app.settings import POCKET_MODEL, Settings
from dmpo_app.store import Store

if TYPE_CHECKING:
    from dmpo_app.rendering.engine import Engine

NUM_NEWEST = 8
"""Versions whose effects are measured, beside the live one: those of a long history would take hours."""
MEASURED_BATCH = 8
_SEED_STEP = 101
"""The first seeds are those of the contact sheet, so that its images are used where they are alike."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Comparison:
    """A comparison under way: `images` of both versions by (version, prompt, seed), those there are so far."""

    version: int
    other_version: int
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    images: dict[tuple[int, str, int], ImageRef]

    def missing_row(self) -> SheetPlan | None:
        """The next row of images to be made."""
        for version in (self.version, self.other_version):
            for prompt in self.prompts:
                if any((version, prompt, seed) not in self.images for seed in self.seeds):
                    return SheetPlan(prompt, version, self.seeds)
        return None

    def add(self, image: ImageRef) -> None:
        provenance = image.provenance
        self.images[provenance.adapter_version, provenance.prompt, provenance.seed] = image

    def image_ids(self, version: int) -> NDArray[np.int64]:
        """The ids of a version's images, (P, S)."""
        return np.array([[self.images[version, prompt, seed].id for seed in self.seeds] for prompt in self.prompts])


class EffectsWork:
    """The comparisons of a lineage's versions; `step` does a part of one."""

    def __init__(self, engine: "Engine", store: Store, base: BaseModelRef, settings: Settings) -> None:
        self._engine = engine
        self._store = store
        self._base = base
        self._settings = settings
        self._measured: set[tuple[int, int]] | None = None
        self._skipped_versions: set[int] = set()
        self._comparison: _Comparison | None = None
        self._scorers: list[EffectScorer] | None = None

    def step(self, should_stop: Callable[[], bool]) -> bool:
        """Make a row of images, measure some, or conclude a comparison; False when there is nothing to do."""
        if self._settings.judging.effect_prompts == 0:
            return False
        if self._comparison is None:
            self._comparison = self._next_comparison()
        comparison = self._comparison
        if comparison is None:
            return False
        try:
            if (row := comparison.missing_row()) is not None:
                self._make_row(comparison, row, should_stop)
            elif not self._measure_batch(comparison):
                self._conclude(comparison)
        except DamagedFileError as error:
            self._store.damage.record(error)
            self._comparison = None
        except Exception:
            # Once and no more: it would fail again at every step, and keep the pool from being filled.
            self._skipped_versions.add(comparison.version)
            self._comparison = None
            raise
        return True

    def _next_comparison(self) -> _Comparison | None:
        """Begin the next comparison: of the newest version, then of the live one, then of older ones."""
        key = next(iter(self._pending()), None)
        if key is None:
            return None
        from dmpo_app.diffusion.live_model import Shot

        images = self._store.images.for_judging(self._base)
        prompts = self._choose_prompts(images)
        if not prompts:
            return None
        seeds = tuple(_SEED_STEP * number for number in range(1, self._settings.judging.effect_seeds + 1))
        comparison = _Comparison(*key, prompts, seeds, {})
        for image in images:
            provenance = image.provenance
            if provenance.adapter_version in key and provenance.prompt in prompts and provenance.seed in seeds:
                shot = Shot(provenance.prompt, provenance.seed, provenance.adapter_version)
                expected = self._engine.expected_provenance(shot, batch_size=len(seeds))
                if _is_alike(provenance, expected):
                    comparison.add(image)
        return comparison

    def _pending(self) -> list[tuple[int, int]]:
        if self._measured is None:
            self._measured = {(one.version, one.other_version) for one in self._store.effects.list(self._base)}
        parents = {adapter.version: adapter.parent for adapter in self._store.adapters.list(self._base)}
        newest = sorted(parents, reverse=True)[:NUM_NEWEST]
        versions = dict.fromkeys([*newest[:1], self._engine.live_version, *newest[1:]])
        keys = [
            (version, other)
            for version in versions
            if version in parents
            for other in dict.fromkeys((parents[version], BASE_VERSION))
        ]
        return [key for key in keys if key not in self._measured and self._skipped_versions.isdisjoint(key)]

    def _choose_prompts(self, images: Sequence[ImageRef]) -> tuple[str, ...]:
        """The held-out prompts in use already, else some spread over the others: the same for all versions."""
        held_out = [prompt.text for prompt in self._store.prompts.list(held_out=True)]
        used = dict.fromkeys(image.provenance.prompt for image in images)
        in_use = [prompt for prompt in used if prompt in set(held_out)][: self._settings.judging.effect_prompts]
        others = [prompt for prompt in held_out if prompt not in set(in_use)]
        return (*in_use, *spread(others, self._settings.judging.effect_prompts - len(in_use)))

    def _make_row(self, comparison: _Comparison, row: SheetPlan, should_stop: Callable[[], bool]) -> None:
        try:
            images = self._engine.make_sheet_row(row, should_stop, kind=ImageKind.JUDGING)
        except (AdapterError, BadInputError, NotFoundError):
            _log.warning("no effects of version %d are measured: it cannot be loaded", row.version)
            self._skipped_versions.add(row.version)
            self._comparison = None
            return
        for image in images:
            comparison.add(image)

    def _measure_batch(self, comparison: _Comparison) -> bool:
        """Measure the next images that lack a measure; False when all have all."""
        images = list(comparison.images.values())
        ids = [image.id for image in images]
        for scorer in self._load_scorers():
            measured = self._store.scores.get(scorer.identities[-1], ids)
            batch = [image for image in images if image.id not in measured][:MEASURED_BATCH]
            if batch:
                self._measure(scorer, batch)
                return True
            scorer.release()
        return False

    def _measure(self, scorer: EffectScorer, batch: Sequence[ImageRef]) -> None:
        """Measure images by one scorer; one that fails is left out until the next start."""
        opened = [self._open(image) for image in batch]
        try:
            scores = scorer.score(opened, [image.provenance.prompt for image in batch])
        except StudioError as error:
            _log.warning("effects are told without a scorer: %s", error)
            self._scorers = [one for one in self._load_scorers() if one is not scorer]
            return
        self._store.scores.put_all(
            {
                identity: {image.id: float(scores[row, k]) for row, image in enumerate(batch)}
                for k, identity in enumerate(scorer.identities)
            }
        )

    def _load_scorers(self) -> list[EffectScorer]:
        """The scorers of this lineage; one that cannot be had is left out until the next start."""
        if self._scorers is None:
            self._scorers = [PixelEffects()]
            for build in self._more_scorers():
                try:
                    self._scorers.append(build())
                except StudioError as error:
                    _log.warning("effects are told without a scorer: %s", error)
        return self._scorers

    def _more_scorers(self) -> list[Callable[[], EffectScorer]]:
        from dmpo_app.scoring.model_effects import ModelEffects, PocketAttributes

        device, scoring = self._settings.render.device, self._settings.round.scoring
        builds: list[Callable[[], EffectScorer]] = []
        if Path(self._base.source).name == POCKET_MODEL.name:
            builds.append(lambda: PocketAttributes.load(device))
        names = {measure.name for measure in (*PixelEffects.measures, *PocketAttributes.measures)}
        for one in scoring.scorers:
            if one.name not in names:
                builds.append(lambda one=one: ModelEffects.load(one.name, one.source, device, scoring.batch_size))  # type: ignore[misc]
        return builds

    def _conclude(self, comparison: _Comparison) -> None:
        comparison = self._without_black_images(comparison)
        if comparison.prompts:
            effects = self._compare(comparison)
            self._store.effects.put(self._base, effects)
            _log.info("version %d: %s", effects.version, effects.effects.sentence)
        assert self._measured is not None
        self._measured.add((comparison.version, comparison.other_version))
        self._comparison = None
        if not self._pending():
            self._purge()

    def _compare(self, comparison: _Comparison) -> VersionComparison:
        version, other = comparison.version, comparison.other_version
        images, other_images = self._open_all(comparison, version), self._open_all(comparison, other)
        values = self._values(comparison, version, images)
        other_values = self._values(comparison, other, other_images)
        distances = [list(map(image_distance, *rows)) for rows in zip(images, other_images, strict=True)]
        effects = measure_effects(
            list(values),
            np.stack(list(values.values()), axis=-1),
            np.stack([other_values[measure] for measure in values], axis=-1),
            ImageChanges(
                comparison.prompts,
                comparison.seeds,
                np.array(distances),
                comparison.image_ids(version),
                comparison.image_ids(other),
            ),
            other_name="the base model" if other == BASE_VERSION else f"version {other}",
        )
        return VersionComparison(version, other, effects)

    def _open_all(self, comparison: _Comparison, version: int) -> list[list[PIL.Image.Image]]:
        return [
            [self._open(comparison.images[version, prompt, seed]) for seed in comparison.seeds]
            for prompt in comparison.prompts
        ]

    def _values(
        self, comparison: _Comparison, version: int, images: Sequence[Sequence[PIL.Image.Image]]
    ) -> dict[EffectMeasure, NDArray[np.float64]]:
        """The values (P, S) of a version's images by measure; of two with one name the later scorer's counts."""
        ids = comparison.image_ids(version)
        by_name: dict[str, tuple[EffectMeasure, NDArray[np.float64]]] = {}
        for scorer in self._load_scorers():
            for measure, identity in zip(scorer.measures, scorer.identities, strict=True):
                scores = self._store.scores.get(identity, ids.ravel().tolist())
                values = np.array([scores[image_id] for image_id in ids.ravel().tolist()]).reshape(ids.shape)
                by_name[measure.name] = (measure, values)
        if len(comparison.seeds) > 1:
            by_name[VARIETY.name] = (VARIETY, np.array([variety(row) for row in images]))
        return dict(by_name.values())

    def _without_black_images(self, comparison: _Comparison) -> _Comparison:
        """Leave out the prompts of which an image is black: the model's safety checker withheld it."""
        black = {
            prompt
            for (_, prompt, _), image in comparison.images.items()
            if self._open(image).convert("L").getextrema() == (0, 0)
        }
        return replace(comparison, prompts=tuple(prompt for prompt in comparison.prompts if prompt not in black))

    def _purge(self) -> None:
        """Delete the images that nothing is compared with any more, except those that stored effects name."""
        parents = {adapter.version: adapter.parent for adapter in self._store.adapters.list(self._base)}
        kept_versions = {BASE_VERSION}
        for version in (max(parents, default=BASE_VERSION), self._engine.live_version):
            kept_versions |= {version, parents.get(version, BASE_VERSION)}
        kept_ids = {
            image_id
            for comparison in self._store.effects.list(self._base)
            for change in comparison.effects.prompts_changed_most
            for image_id in (change.image_id, change.other_image_id)
        }
        self._store.images.purge_judging(self._base, kept_versions=kept_versions, kept_ids=kept_ids)

    def _open(self, image: ImageRef) -> PIL.Image.Image:
        return PIL.Image.open(io.BytesIO(self._store.files.read_image(image.sha256)))


def _is_alike(provenance: Provenance, expected: Provenance) -> bool:
    """True for an image made as it would be now; the number of threads changes last bits at most."""
    return replace(provenance, num_threads=expected.num_threads) == expected

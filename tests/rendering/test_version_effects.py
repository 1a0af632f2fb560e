"""Effects of versions, from the images to the store: an engine that paints instead of a model, and the tiny model."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.diffusion.live_model import Shot
from dmpo_app.domain.lineage import ImageKind, ImageRef, NewImage, Provenance
from dmpo_app.errors import AdapterCorruptError
from dmpo_app.rendering.effects import EffectsWork
from dmpo_app.rendering.engine import Engine
from dmpo_app.rendering.pool import SheetPlan
from dmpo_app.rendering.render_thread import BackgroundWork
from dmpo_app.settings import JudgingSettings
from dmpo_app.store import Store, utc_now
from tests.rendering.rendering_studio import HELD_OUT_PROMPTS, RenderingStudio

MakeAdapter = Callable[[int], AdapterWeights]
NUM_PROMPTS = 6
SEEDS = (101, 202)


@pytest.fixture
def studio(tmp_path: Path, tiny_model: Path) -> Any:
    studio = RenderingStudio.open(tmp_path / "home", tiny_model, effect_prompts=NUM_PROMPTS)
    studio.store.prompts.ensure(["a silver moth"], held_out=True)
    yield studio
    studio.store.close()


@dataclass
class PaintingEngine:
    """An engine that paints: coloured noise by prompt and seed, multiplied by the brightness of the version."""

    studio: RenderingStudio
    brightness: dict[int, float]
    live_version: int = 0
    num_steps: int = 2
    broken: set[int] = field(default_factory=set)
    black: set[str] = field(default_factory=set)
    rows: list[SheetPlan] = field(default_factory=list)
    shares_cpu: bool = True

    def make_pair(self, *_: object) -> bool:
        return False

    def encode_imported(self) -> bool:
        return False

    def expected_provenance(self, shot: Shot, *, batch_size: int) -> Provenance:
        strength = 1.0 if shot.version else 0.0
        return Provenance(
            shot.prompt, shot.seed, "ddim", self.num_steps, 1.0, shot.version, strength, batch_size, 1, "cpu", "float32"
        )

    def make_sheet_row(
        self, plan: SheetPlan, _should_stop: Callable[[], bool], *, kind: ImageKind = ImageKind.CONTACT_SHEET
    ) -> list[ImageRef]:
        if plan.version in self.broken:
            raise AdapterCorruptError("its hash differs")
        self.rows.append(plan)
        return [self._paint(plan, seed, kind) for seed in plan.seeds]

    def _paint(self, plan: SheetPlan, seed: int, kind: ImageKind) -> ImageRef:
        rng = np.random.default_rng([seed, *plan.prompt.encode()])
        own = np.random.default_rng([seed, plan.version, *plan.prompt.encode()])
        colour = rng.uniform(60, 200, size=3) * self.brightness[plan.version]
        pixels = np.clip(colour + 20 * rng.standard_normal((16, 16, 3)) + own.standard_normal((16, 16, 3)), 0, 255)
        if plan.prompt in self.black:
            pixels *= 0
        buffer = BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
        provenance = self.expected_provenance(Shot(plan.prompt, seed, plan.version), batch_size=len(plan.seeds))
        provenance = replace(provenance, num_threads=3)
        return self.studio.store.images.add(self.studio.base, NewImage(buffer.getvalue(), 16, 16, provenance), kind)


def work_on(studio: RenderingStudio, engine: PaintingEngine) -> EffectsWork:
    return EffectsWork(cast(Engine, engine), studio.store, studio.base, studio.settings)


def finish(work: EffectsWork) -> None:
    while work.step(lambda: False):
        pass


def judging_images(store: Store) -> dict[int, int]:
    rows = store.read("SELECT adapter_version, count(*) AS n FROM images WHERE kind = 'judging' GROUP BY 1 ORDER BY 1")
    return {row.adapter_version: row.n for row in rows}


def publish(studio: RenderingStudio, engine: PaintingEngine, adapter: AdapterWeights) -> int:
    version = studio.publish(adapter, parent=studio.store.adapters.live_version(studio.base)).version
    engine.live_version = version
    return version


def test_a_darker_version_is_found_darker_than_the_base_model_on_held_out_prompts(
    studio: RenderingStudio, adapter: MakeAdapter
) -> None:
    engine = PaintingEngine(studio, {0: 1.0, 1: 0.8})
    publish(studio, engine, adapter(1))
    finish(work_on(studio, engine))
    (comparison,) = studio.store.effects.list(studio.base)
    effects = comparison.effects
    assert (comparison.version, comparison.other_version, effects.num_images) == (1, 0, 2 * NUM_PROMPTS)
    moved = {effect.measure: effect for effect in effects.measures if effect.moved}
    assert moved["brightness"].words == "darker"
    assert moved["brightness"].num_agreeing == 2 * NUM_PROMPTS
    assert moved["brightness"].size == pytest.approx(-20, abs=2)
    assert effects.sentence.startswith("Compared with the base model: ")
    assert {plan.seeds for plan in engine.rows} == {SEEDS}
    assert len({plan.prompt for plan in engine.rows}) == NUM_PROMPTS


def test_a_version_that_paints_the_same_but_for_noise_moves_nothing(
    studio: RenderingStudio, adapter: MakeAdapter
) -> None:
    engine = PaintingEngine(studio, {0: 1.0, 1: 1.0})
    publish(studio, engine, adapter(1))
    finish(work_on(studio, engine))
    (comparison,) = studio.store.effects.list(studio.base)
    assert "no measure moved beyond chance" in comparison.effects.sentence


def test_a_version_is_compared_with_its_parent_and_the_base_model_whose_images_are_made_once(
    studio: RenderingStudio, adapter: MakeAdapter
) -> None:
    engine = PaintingEngine(studio, {0: 1.0, 1: 0.8, 2: 0.8})
    for seed in (1, 2):
        publish(studio, engine, adapter(seed))
        finish(work_on(studio, engine))
    pairs = [(one.version, one.other_version) for one in studio.store.effects.list(studio.base)]
    assert pairs == [(1, 0), (2, 1), (2, 0)]
    assert len(engine.rows) == 3 * NUM_PROMPTS
    assert judging_images(studio.store) == dict.fromkeys((0, 1, 2), 2 * NUM_PROMPTS)


def test_a_restart_in_the_middle_makes_and_measures_only_what_is_missing(
    studio: RenderingStudio, adapter: MakeAdapter
) -> None:
    engine = PaintingEngine(studio, {0: 1.0, 1: 0.8})
    publish(studio, engine, adapter(1))
    for _ in range(2 * NUM_PROMPTS + 3):
        assert work_on(studio, engine).step(lambda: False)
    finish(work_on(studio, engine))
    assert len(engine.rows) == 2 * NUM_PROMPTS
    assert len(studio.store.effects.list(studio.base)) == 1


def test_images_of_the_contact_sheet_are_used_where_they_were_made_alike(
    studio: RenderingStudio, adapter: MakeAdapter
) -> None:
    engine = PaintingEngine(studio, {0: 1.0, 1: 0.8})
    publish(studio, engine, adapter(1))
    for prompt in HELD_OUT_PROMPTS[:2]:
        engine.make_sheet_row(SheetPlan(prompt, 0, SEEDS), lambda: False)
    engine.num_steps = 3
    engine.make_sheet_row(SheetPlan(HELD_OUT_PROMPTS[2], 0, SEEDS), lambda: False)
    engine.num_steps = 2
    engine.rows.clear()
    finish(work_on(studio, engine))
    made_by_base = [plan.prompt for plan in engine.rows if plan.version == 0]
    assert len(made_by_base) == NUM_PROMPTS - 2
    assert HELD_OUT_PROMPTS[2] in made_by_base


def test_images_of_versions_that_nothing_is_compared_with_any_more_are_deleted_but_those_that_are_named(
    studio: RenderingStudio, adapter: MakeAdapter
) -> None:
    engine = PaintingEngine(studio, {0: 1.0, 1: 0.9, 2: 0.8, 3: 0.7, 4: 0.6})
    for seed in (1, 2, 3, 4):
        publish(studio, engine, adapter(seed))
        finish(work_on(studio, engine))
    counts = judging_images(studio.store)
    assert {version: counts[version] for version in (0, 3, 4)} == dict.fromkeys((0, 3, 4), 2 * NUM_PROMPTS)
    assert 0 < counts[1] < 2 * NUM_PROMPTS
    for comparison in studio.store.effects.list(studio.base):
        for change in comparison.effects.prompts_changed_most:
            assert studio.store.images.get(change.image_id).provenance.adapter_version == comparison.version
            other = studio.store.images.get(change.other_image_id)
            assert (other.provenance.adapter_version, other.provenance.seed) == (comparison.other_version, change.seed)


def test_a_version_that_cannot_be_loaded_is_passed_over(studio: RenderingStudio, adapter: MakeAdapter) -> None:
    engine = PaintingEngine(studio, {0: 1.0, 1: 0.8, 2: 0.8}, broken={2})
    for seed in (1, 2):
        publish(studio, engine, adapter(seed))
    finish(work_on(studio, engine))
    assert [(one.version, one.other_version) for one in studio.store.effects.list(studio.base)] == [(1, 0)]


def test_prompts_with_an_image_that_was_withheld_do_not_count(studio: RenderingStudio, adapter: MakeAdapter) -> None:
    engine = PaintingEngine(studio, {0: 1.0, 1: 0.8}, black={HELD_OUT_PROMPTS[1]})
    publish(studio, engine, adapter(1))
    finish(work_on(studio, engine))
    (comparison,) = studio.store.effects.list(studio.base)
    assert comparison.effects.num_prompts == NUM_PROMPTS - 1


def test_a_damaged_image_is_made_again(studio: RenderingStudio, adapter: MakeAdapter) -> None:
    engine = PaintingEngine(studio, {0: 1.0, 1: 0.8})
    publish(studio, engine, adapter(1))
    work = work_on(studio, engine)
    for _ in range(2 * NUM_PROMPTS):
        work.step(lambda: False)
    image = studio.store.images.for_judging(studio.base)[0]
    studio.store.files.image_path(image.sha256).write_bytes(b"rubbish")
    finish(work)
    assert len(engine.rows) == 2 * NUM_PROMPTS + 1
    assert len(studio.store.effects.list(studio.base)) == 1


def test_nothing_is_made_without_a_version_without_prompts_or_where_it_is_switched_off(
    studio: RenderingStudio, adapter: MakeAdapter
) -> None:
    engine = PaintingEngine(studio, {0: 1.0, 1: 0.8})
    assert not work_on(studio, engine).step(lambda: False)
    publish(studio, engine, adapter(1))
    studio.settings = studio.settings.model_copy(update={"judging": JudgingSettings(effect_prompts=0)})
    assert not work_on(studio, engine).step(lambda: False)


def test_effects_come_after_the_contact_sheet_and_not_while_a_round_trains_on_the_same_processor(
    studio: RenderingStudio, adapter: MakeAdapter
) -> None:
    engine = PaintingEngine(studio, {0: 1.0, 1: 0.8})
    publish(studio, engine, adapter(1))
    work = BackgroundWork(
        cast(Engine, engine), studio.store, studio.base, studio.settings, rng=random.Random(0), now=utc_now
    )
    running, token = studio.start_round()
    while work.step(lambda: False):
        pass
    assert len(studio.store.images.contact_sheet(studio.base)) == 2 * 4 * 2
    assert judging_images(studio.store) == {}
    studio.store.rounds.refuse(running.id, "enough", token=token)
    while work.step(lambda: False):
        pass
    assert len(studio.store.effects.list(studio.base)) == 1
    assert judging_images(studio.store) == {0: 2 * (NUM_PROMPTS - 4), 1: 2 * (NUM_PROMPTS - 4)}


def test_the_real_engine_makes_the_same_batches_for_all_versions(studio: RenderingStudio, adapter: MakeAdapter) -> None:
    studio.publish(adapter(1))
    engine = Engine.load(studio.store, studio.base, studio.settings)
    engine.sync_live_version()
    finish(EffectsWork(engine, studio.store, studio.base, studio.settings))
    (comparison,) = studio.store.effects.list(studio.base)
    assert comparison.effects.mean_change > 0
    images = studio.store.images.for_judging(studio.base)
    assert {image.provenance.adapter_version for image in images} == {0, 1}
    assert {image.provenance.batch_size for image in images} == {2}
    assert engine.live_version == 1

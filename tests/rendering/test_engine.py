import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.diffusion.live_model import LiveModel, Shot
from dmpo_app.diffusion.tensor_files import load_conditioning, load_latents
from dmpo_app.domain.lineage import RenderRequest
from dmpo_app.errors import AdapterCorruptError, NotFoundError, SetupError, StudioError
from dmpo_app.rendering import engine as engine_module
from dmpo_app.rendering.engine import Engine
from dmpo_app.rendering.pool import PairPlan, SheetPlan
from tests.adapters import SPEC
from tests.rendering.rendering_studio import RenderingStudio
from tests.tiny_pipeline import IMAGE_SIZE, LATENT_SHAPE, MAX_TOKENS, make_tiny_pipeline

MakeAdapter = Callable[[int], AdapterWeights]
PLAN = PairPlan("a red fox", (1, 2))


def never() -> bool:
    return False


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(studio: RenderingStudio, clock: Clock) -> Engine:
    return Engine.load(studio.store, studio.base, studio.settings, clock=clock)


def render(studio: RenderingStudio, engine: Engine, *versions: int, strength: float = 1.0) -> list[tuple[int, bytes]]:
    images = engine.render(RenderRequest("a red fox", 5, versions, strength), never)
    for image in images:
        assert image.version == image.image.provenance.adapter_version
    return [(image.version, studio.store.files.read_image(image.image.sha256)) for image in images]


def test_versions_come_in_the_order_asked_each_made_with_its_own_weights(
    studio: RenderingStudio, engine: Engine, adapter: MakeAdapter
) -> None:
    for seed in (1, 2):
        studio.publish(adapter(seed))
    engine.sync_live_version()
    alone = dict(render(studio, engine, 0) + render(studio, engine, 1) + render(studio, engine, 2))
    assert len(set(alone.values())) == 3
    assert [version for version, _ in render(studio, engine, 2, 0, 1)] == [2, 0, 1]
    assert render(studio, engine, 2, 1, 2) == render(studio, engine, 2, 1, 2)
    assert render(studio, engine, 1) == [(1, alone[1])]
    assert engine.live_version == 2


def test_base_and_live_share_a_batch_and_equal_their_own_batches_of_that_size(
    studio: RenderingStudio, engine: Engine, adapter: MakeAdapter
) -> None:
    studio.publish(adapter(1))
    engine.sync_live_version()
    (_, base), (_, live) = render(studio, engine, 0, 1)
    assert base == render(studio, engine, 0, 0)[0][1]
    assert live == render(studio, engine, 1, 1)[1][1]
    assert base != live
    assert render(studio, engine, 0, 1, strength=0.0)[1] == (1, render(studio, engine, 0, 0)[1][1])


def test_a_request_for_another_version_leaves_the_live_one_in_place(
    studio: RenderingStudio, engine: Engine, adapter: MakeAdapter
) -> None:
    for seed in (1, 2):
        studio.publish(adapter(seed))
    engine.sync_live_version()
    expected = render(studio, engine, 2)
    render(studio, engine, 1)
    assert engine._model.version == 2
    assert render(studio, engine, 2) == expected


def test_going_back_to_an_earlier_version_and_to_the_base_is_followed(
    studio: RenderingStudio, engine: Engine, adapter: MakeAdapter
) -> None:
    for seed in (1, 2):
        studio.publish(adapter(seed))
    for version in (2, 1, 0, 2):
        studio.store.adapters.set_live(studio.base, version, "test")
        engine.sync_live_version()
        assert (engine.live_version, engine.problem) == (version, "")
        assert engine.make_pair(PLAN, never)
    assert studio.store.pairs.count_unjudged(studio.base, adapter_version=2) == 2


def test_a_damaged_version_never_goes_live_and_the_last_good_one_stays(
    studio: RenderingStudio, engine: Engine, clock: Clock, adapter: MakeAdapter
) -> None:
    studio.publish(adapter(1))
    engine.sync_live_version()
    before = render(studio, engine, 1)
    bad = studio.publish(adapter(2))
    studio.damage(bad)
    engine.sync_live_version()
    assert engine.live_version == 1
    assert "version 2" in engine.problem
    assert "version 1 stays" in engine.problem
    assert render(studio, engine, 1) == before
    with pytest.raises(AdapterCorruptError, match="sha256"):
        render(studio, engine, 2)
    assert render(studio, engine, 1) == before

    studio.damage(bad)  # the same bit once more: whole again
    engine.sync_live_version()
    assert engine.live_version == 1, "not tried again at once"
    clock.seconds += 31
    engine.sync_live_version()
    assert (engine.live_version, engine.problem) == (2, "")


def test_a_live_version_whose_file_goes_bad_later_gives_way_to_the_base_and_never_to_a_mixture(
    studio: RenderingStudio, engine: Engine, adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "MAX_CACHE_BYTES", 0)  # keeps one version in memory
    base, expected = render(studio, engine, 0), []
    for seed in (1, 2):
        studio.publish(adapter(seed))
        engine.sync_live_version()
        expected += render(studio, engine, seed)
    studio.damage(studio.store.adapters.get(studio.base, 2))
    assert render(studio, engine, 1) == expected[:1]
    assert (engine.live_version, engine._model.version) == (0, 0)
    assert "version 2 can no longer be loaded" in engine.problem
    assert render(studio, engine, 0) == base


def test_running_out_of_memory_says_what_to_do_and_the_next_request_works(
    studio: RenderingStudio, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine._model._pipeline.vae, "decode", no_memory)
        with pytest.raises(StudioError, match="DMPO_RENDER__RESOLUTION"):
            render(studio, engine, 0)
    assert render(studio, engine, 0)


def test_an_adapter_of_another_base_model_never_goes_live(
    studio: RenderingStudio, engine: Engine, adapter: MakeAdapter
) -> None:
    tensors = adapter(1).tensors
    studio.publish(
        AdapterWeights(SPEC, {key.replace("down_blocks.0", "down_blocks.7"): tensors[key] for key in tensors})
    )
    engine.sync_live_version()
    assert engine.live_version == 0
    assert "does not fit" in engine.problem


def test_a_version_that_does_not_exist_is_not_found(studio: RenderingStudio, engine: Engine) -> None:
    with pytest.raises(NotFoundError, match="7"):
        render(studio, engine, 0, 7)
    assert render(studio, engine, 0)


def test_a_pair_is_stored_with_what_training_needs(
    studio: RenderingStudio, engine: Engine, adapter: MakeAdapter
) -> None:
    studio.publish(adapter(1))
    engine.sync_live_version()
    assert engine.make_pair(PLAN, never)
    pair = studio.store.pairs.get(1)
    assert (pair.prompt, pair.adapter_version) == ("a red fox", 1)
    assert (pair.image_a.provenance.seed, pair.image_b.provenance.seed) == (1, 2)
    assert (pair.image_a.width, pair.image_a.height) == (IMAGE_SIZE, IMAGE_SIZE)
    model = LiveModel.load(studio.base.source, studio.settings.render, SPEC)
    model.swap(1, adapter(1))
    expected = model.render([Shot("a red fox", seed, 1) for seed in (1, 2)])
    for image, sample in zip((pair.image_a, pair.image_b), expected, strict=True):
        assert image.latents_sha256 is not None
        latents = load_latents(studio.store.files.latents_path(image.latents_sha256).read_bytes())
        assert latents.shape == LATENT_SHAPE
        assert torch.equal(latents, sample.latents)
    (embeds,) = (studio.settings.home / "embeds").glob("*/*.safetensors")
    assert load_conditioning(embeds.read_bytes())["prompt_embeds"].shape == (MAX_TOKENS, 16)


def test_a_row_of_the_contact_sheet_is_stored_as_such(studio: RenderingStudio, engine: Engine) -> None:
    engine.make_sheet_row(SheetPlan("a pink crane", 0, (1, 2)), never)
    stored = studio.store.images.contact_sheet(studio.base)
    assert [(image.provenance.prompt, image.provenance.seed) for image in stored] == [
        ("a pink crane", 1),
        ("a pink crane", 2),
    ]


def test_pairs_that_the_models_safety_checker_flags_are_not_kept(tmp_path: Path) -> None:
    folder = make_tiny_pipeline(tmp_path / "model", safety_checker="flags everything")
    studio = RenderingStudio.open(tmp_path / "home", folder)
    with studio.store:
        engine = Engine.load(studio.store, studio.base, studio.settings)
        assert not engine.make_pair(PLAN, never)
        assert studio.store.pairs.count(studio.base) == 0


def test_a_flagged_image_that_a_person_asked_for_is_said_to_be_withheld(tmp_path: Path) -> None:
    folder = make_tiny_pipeline(tmp_path / "model", safety_checker="flags everything")
    studio = RenderingStudio.open(tmp_path / "home", folder)
    with studio.store:
        for checker, withheld in (("on", True), ("off", False)):
            settings = studio.settings.render.model_copy(update={"safety_checker": checker})
            engine = Engine.load(studio.store, studio.base, studio.settings.model_copy(update={"render": settings}))
            [made] = engine.render(RenderRequest("a red fox", 5, (0,)), never)
            pixels = Image.open(io.BytesIO(studio.store.files.read_image(made.image.sha256)))
            assert made.withheld == withheld
            assert (pixels.convert("L").getextrema() == (0, 0)) == withheld


def test_a_safety_checker_that_is_wanted_and_missing_keeps_the_model_from_loading(studio: RenderingStudio) -> None:
    settings = studio.settings.render.model_copy(update={"safety_checker": "on"})
    with pytest.raises(SetupError, match=r"SAFETY_CHECKER=on.*without a safety checker"):
        Engine.load(studio.store, studio.base, studio.settings.model_copy(update={"render": settings}))


def test_a_plan_of_three_seeds_becomes_a_set_that_can_be_ranked(studio: RenderingStudio, engine: Engine) -> None:
    assert engine.make_pair(PairPlan("a red fox", (1, 2, 3)), never)
    assert studio.store.pairs.count_unjudged(studio.base) == 0
    assert studio.store.pairs.count_unjudged(studio.base, num_images=3) == 1

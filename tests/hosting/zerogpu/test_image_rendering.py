"""Images made by a forked process: stored by the server, by the version and hash that the database names."""

from pathlib import Path

import pytest

from dmpo_app.domain.lineage import BASE_VERSION, RenderRequest
from dmpo_app.errors import AdapterCorruptError, BadInputError, GpuAbortedError, NotFoundError, NotReadyError
from dmpo_app.rendering.engine import Engine
from tests.hosting.zerogpu.lent_studio import Lent
from tests.training.training_studio import TrainingStudio

HELD_OUT = ("a pink crane", "a black cat")


@pytest.fixture
def painted(studio: TrainingStudio) -> TrainingStudio:
    """With a published version, and prompts on both sides."""
    studio.store.prompts.ensure(("a red fox", "a blue whale"), held_out=False)
    studio.store.prompts.ensure(HELD_OUT, held_out=True)
    studio.add_pairs(8)
    studio.vote(8)
    return studio


def pixels(lent: Lent, request: RenderRequest) -> list[bytes]:
    files = lent.studio.store.files
    return [files.read_image(made.image.sha256) for made in lent.lent.gpu_minutes.render(request)]


def test_a_persons_images_are_those_that_a_gpu_at_home_would_make_bit_for_bit(painted: TrainingStudio) -> None:
    lent = Lent.make(painted)
    lent.advance()
    request = RenderRequest("a red fox", 7, (BASE_VERSION, 1))
    engine = Engine.load(painted.store, painted.base, lent.settings)
    engine.sync_live_version()
    at_home = [painted.store.files.read_image(made.image.sha256) for made in engine.render(request, lambda: False)]
    assert pixels(lent, request) == at_home
    assert at_home[0] != at_home[1]


def test_a_process_that_has_just_trained_paints_as_a_fresh_one_does(painted: TrainingStudio) -> None:
    used, fresh = Lent.make(painted), Lent.make(painted, reuse=False)
    used.advance()
    request = RenderRequest("a red fox", 7, (BASE_VERSION, 1))
    assert pixels(used, request) == pixels(used, request) == pixels(fresh, request)
    assert len(set(used.gpu.pids)) == 1


def test_a_process_does_not_go_on_with_an_adapter_whose_file_has_changed_since(painted: TrainingStudio) -> None:
    lent = Lent.make(painted)
    lent.advance()
    request = RenderRequest("a red fox", 7, (1,))
    pixels(lent, request)
    weights: Path = painted.store.adapters.get(painted.base, 1).folder / "pytorch_lora_weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(AdapterCorruptError, match="changed after it was published"):
        pixels(lent, request)


def test_a_lent_minute_fills_the_pool_first_and_then_the_contact_sheet(painted: TrainingStudio) -> None:
    lent = Lent.make(painted)
    assert painted.store.pairs.count_unjudged(painted.base) == 0
    said = list(lent.lent.gpu_minutes.run_minute())
    assert said[-1] == "Thank you: 8 images were made for everybody."
    assert painted.store.pairs.count_unjudged(painted.base) == 4
    lent.advance()  # the eight votes are a round
    list(lent.lent.gpu_minutes.run_minute())
    sheet = painted.store.images.contact_sheet(painted.base)
    assert {image.provenance.adapter_version for image in sheet} == {0, 1}
    while "made" in (words := list(lent.lent.gpu_minutes.run_minute())[-1]):
        pass
    assert "nothing to do for a GPU" in words


def test_the_pairs_of_a_lent_minute_can_be_trained_on(painted: TrainingStudio) -> None:
    lent = Lent.make(painted)
    lent.advance()
    list(lent.lent.renderer.fill(45))
    while painted.store.pairs.count_unjudged(painted.base) == 0:
        list(lent.lent.renderer.fill(45))
    painted.vote(painted.store.pairs.count_unjudged(painted.base))
    painted.add_pairs(4)
    painted.vote(4)
    assert lent.advance().adapter_version == 2


def test_images_that_a_killed_process_had_not_handed_over_are_not_there(painted: TrainingStudio) -> None:
    lent = Lent.make(painted, kill_after=1)
    with pytest.raises(GpuAbortedError):
        list(lent.lent.renderer.fill(45))
    assert painted.store.pairs.count_unjudged(painted.base) == 1


def test_what_cannot_be_rendered_is_refused_before_a_gpu_is_asked_for(painted: TrainingStudio) -> None:
    lent = Lent.make(painted)
    with pytest.raises(BadInputError, match="strength"):
        lent.lent.gpu_minutes.render(RenderRequest("a red fox", 7, (0,), strength=9))
    with pytest.raises(NotFoundError):
        lent.lent.gpu_minutes.render(RenderRequest("a red fox", 7, (5,)))
    with pytest.raises(NotReadyError, match="press Render on the page"):
        lent.lent.renderer.submit(RenderRequest("a red fox", 7, (0,)))
    assert lent.gpu.asked_seconds == []

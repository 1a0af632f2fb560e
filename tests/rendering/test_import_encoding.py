"""Imported pairs get latents from the model that serves the studio, and are then trained on."""

import random
from datetime import timedelta
from pathlib import Path

import pytest

from dmpo_app.diffusion.tensor_files import load_conditioning, load_latents
from dmpo_app.domain.data_import import EncodingProgress, ImportUse
from dmpo_app.domain.vote import Choice
from dmpo_app.errors import DamagedFileError
from dmpo_app.exchange.importing.importer import Importer, get_reader
from dmpo_app.exchange.readers.registry import open_source
from dmpo_app.rendering.engine import Engine, ImportEncoder
from dmpo_app.rendering.pool import PairPlan
from tests.exchange.readers.preference_files import image_bytes
from tests.rendering.rendering_studio import RenderingStudio


def take_in(studio: RenderingStudio, folder: Path, count: int) -> None:
    for side, first in (("winners", 0), ("losers", count)):
        (folder / side).mkdir(parents=True)
        for number in range(count):
            size = (48, 30 + number)
            (folder / side / f"{number}.png").write_bytes(image_bytes(first + number, file_format="PNG", size=size))
            (folder / side / f"{number}.txt").write_text(f"a cat of {number % 2}")
    source = open_source(str(folder))
    reader = get_reader(source, "auto")
    Importer(studio.store, studio.base, studio.settings, source, reader, ImportUse.BOTH).run()


@pytest.mark.parametrize("lost", ["latents", "embeds"])
def test_a_pair_that_lost_tensors_is_encoded_again_from_its_images(studio: RenderingStudio, lost: str) -> None:
    store, base = studio.store, studio.base
    engine = Engine.load(store, base, studio.settings)
    engine.make_pair(PairPlan("a red fox", (1, 2)), lambda: False)
    anna = store.annotators.ensure("anna")
    [shown] = store.assignments.issue(base, anna.id, 1, rng=random.Random(0), lifetime=timedelta(hours=1)).result()
    store.votes.record(shown.id, anna.id, Choice.LEFT, 10)
    [vote] = store.votes.training_votes(base)
    whole = [store.files.read_latents(vote.latents_a), store.files.read_embeds(vote.prompt_embeds)]
    files = store.files
    path = files.latents_path(vote.latents_a) if lost == "latents" else files.embeds_path(vote.prompt_embeds)
    path.write_bytes(b"half")
    read = store.files.read_latents if lost == "latents" else store.files.read_embeds
    with pytest.raises(DamagedFileError) as caught:
        read(path.stem)
    store.damage.record(caught.value)
    assert store.votes.training_votes(base) == []
    assert engine.encode_imported()
    [again] = store.votes.training_votes(base)
    latents = store.files.read_latents(again.latents_a)
    assert load_latents(latents).shape == load_latents(whole[0]).shape
    assert store.files.read_embeds(again.prompt_embeds) == whole[1]
    assert (latents == whole[0]) is (lost == "embeds"), "latents that are whole are kept"
    assert store.damage.list(base) == []


def test_a_pair_whose_images_come_back_is_encoded_a_minute_later(studio: RenderingStudio, tmp_path: Path) -> None:
    take_in(studio, tmp_path / "data", 2)
    store, base, now = studio.store, studio.base, [100.0]
    gone = store.imports.list_unencoded(base, after=0, limit=9)[0]
    path = store.files.image_path(gone.png_a)
    content = path.read_bytes()
    path.unlink()
    encoder = Engine.load(store, base, studio.settings)._imports._encoder
    imports = ImportEncoder(store, base, encoder, clock=lambda: now[0])
    assert [imports.step() for _ in range(3)] == [True, False, True]
    assert [one.pair_id for one in store.damage.list(base)] == [gone.id]
    path.write_bytes(content)
    assert not imports.step()
    now[0] += 61
    assert [imports.step() for _ in range(2)] == [False, True]
    assert store.imports.encoding_progress(base) is None


def test_imported_pairs_of_any_size_get_latents_of_the_model_and_count_from_then_on(
    studio: RenderingStudio, tmp_path: Path
) -> None:
    take_in(studio, tmp_path / "data", 6)
    store, base = studio.store, studio.base
    gone = store.imports.list_unencoded(base, after=0, limit=9)[1]
    store.files.image_path(gone.png_a).unlink()
    assert store.imports.encoding_progress(base) == EncodingProgress(0, 6)
    engine = Engine.load(store, base, studio.settings)
    assert [engine.encode_imported() for _ in range(3)] == [True, True, False]
    assert store.imports.encoding_progress(base) == EncodingProgress(5, 6)
    votes = store.votes.training_votes(base)
    assert len(votes) == store.votes.new_preferences(base).count == 5
    assert gone.id not in [vote.pair_id for vote in votes]
    shapes = {
        tuple(load_latents(store.files.read_latents(name)).shape)
        for vote in votes
        for name in (vote.latents_a, vote.latents_b)
    }
    assert len(shapes) == 1
    assert "prompt_embeds" in load_conditioning(store.files.read_embeds(votes[0].prompt_embeds))

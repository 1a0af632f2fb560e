"""Imported pairs get latents from the model that serves the studio, and are then trained on."""

from pathlib import Path

from dmpo_app.diffusion.tensor_files import load_conditioning, load_latents
from dmpo_app.domain.data_import import EncodingProgress, ImportUse
from dmpo_app.exchange.importing.importer import Importer, get_reader
from dmpo_app.exchange.readers.registry import open_source
from dmpo_app.rendering.engine import Engine
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

"""Imported pairs and votes in a round, from the file to the published adapter."""

from pathlib import Path

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.loading import Encoder
from dmpo_app.domain.data_import import ImportUse
from dmpo_app.exchange.importing.importer import Importer, get_reader
from dmpo_app.exchange.readers.registry import open_source
from dmpo_app.rendering.engine import ImportEncoder
from dmpo_app.settings import Settings
from tests.exchange.readers.preference_files import pick_a_pic_row, write_pick_a_pic
from tests.training.training_studio import TrainingStudio


def test_a_round_learns_from_imported_votes_and_from_votes_on_imported_pairs(
    tmp_path: Path, tiny_model: Path, denoiser: Denoiser
) -> None:
    studio = TrainingStudio.open(tmp_path / "home", tiny_model)
    path = write_pick_a_pic(tmp_path / "train-0.parquet", [pick_a_pic_row(number) for number in range(8)])
    source = open_source(str(path))
    settings = Settings(home=studio.home, base_model=str(tiny_model))
    Importer(studio.store, studio.base, settings, source, get_reader(source, "auto"), ImportUse.BOTH).run()
    encoder = Encoder.load(str(tiny_model), device="cpu", dtype="float32", resolution=None)
    work = ImportEncoder(studio.store, studio.base, encoder)
    while work.step():
        pass
    studio.vote(3)
    round_id, token = studio.start()
    studio.run(denoiser, round_id, token)
    state = studio.store.rounds.get(round_id)
    assert (state.finished_at is not None, state.num_votes) == (True, 11)
    studio.store.close()

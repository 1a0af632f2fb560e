"""Images, latents and embeddings on S3 as well: a wiped disk has them again when they are asked for."""

import shutil
from pathlib import Path

import pytest

from dmpo_app.backup.remotes import open_remote
from dmpo_app.backup.startup import open_store
from dmpo_app.errors import NotFoundError
from dmpo_app.settings import Settings
from tests.store.store_data import FINGERPRINT, new_pair


def test_what_the_disk_lost_is_fetched_checked_and_kept(home: Path, s3_url: str) -> None:
    settings = Settings(home=home, files_url=f"{s3_url}-files")
    with open_store(settings) as store:
        base = store.models.register("pocket", "stable-diffusion", FINGERPRINT)
        store.pairs.add(base, new_pair())
        [pair] = store.pairs.for_training(base, ids=[1])
        paths = [store.files.latents_path(pair.latents_a), store.files.embeds_path(pair.prompt_embeds)]
        before = [path.read_bytes() for path in paths]
    for folder in ("images", "latents", "embeds"):
        shutil.rmtree(home / folder)
    with open_store(settings) as store:
        assert store.files.read_latents(pair.latents_a) == before[0]
        assert store.files.read_embeds(pair.prompt_embeds) == before[1]
        assert all(path.is_file() for path in paths), "from now on they are read here"
        store.files.delete(paths)
        with pytest.raises(NotFoundError):
            store.files.read_latents(pair.latents_a)


def test_a_file_that_was_changed_there_is_not_taken(home: Path, s3_url: str) -> None:
    settings = Settings(home=home, files_url=f"{s3_url}-changed")
    with open_store(settings) as store:
        sha256 = store.files.put_image(b"an image")
        path = store.files.image_path(sha256)
        path.unlink()
        open_remote(f"{s3_url}-changed").put([(path.relative_to(home).as_posix(), b"another")])
        with pytest.raises(NotFoundError, match="damaged"):
            store.files.read_image(sha256)
        assert not path.exists()


def test_images_that_are_stored_many_at_once_are_there_as_well(home: Path, s3_url: str) -> None:
    contents = [b"one image", b"another image"]
    with open_store(Settings(home=home, files_url=f"{s3_url}-many")) as store:
        names = store.files.put_images(contents)
        shutil.rmtree(home / "images")
        assert [store.files.read_image(name) for name in names] == contents

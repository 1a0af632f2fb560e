import errno
import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from dmpo_app.errors import NotFoundError, StorageFullError
from dmpo_app.store.files import Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_file_is_named_by_its_content(files: Files, tmp_path: Path) -> None:
    sha256 = files.put_image(b"image")
    assert sha256 == hashlib.sha256(b"image").hexdigest()
    assert files.image_path(sha256) == tmp_path / "images" / sha256[:2] / f"{sha256}.png"
    assert files.read_image(sha256) == b"image"


def test_latents_and_embeds_have_folders_of_their_own(files: Files) -> None:
    latents, embeds = files.put_latents(b"tensor"), files.put_embeds(b"tensor")
    assert latents == embeds
    assert files.latents_path(latents).parts[-3:] == ("latents", latents[:2], f"{latents}.safetensors")
    assert files.embeds_path(embeds).parts[-3:] == ("embeds", embeds[:2], f"{embeds}.safetensors")
    assert files.read_latents(latents) == files.read_embeds(embeds) == b"tensor"


def test_the_same_content_is_written_once(files: Files) -> None:
    path = files.image_path(files.put_image(b"image"))
    inode = path.stat().st_ino
    files.put_image(b"image")
    assert path.stat().st_ino == inode


def test_many_threads_storing_the_same_content_leave_one_whole_file(files: Files, tmp_path: Path) -> None:
    content = os.urandom(200_000)
    threads = [threading.Thread(target=files.put_image, args=(content,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = [path for path in (tmp_path / "images").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in stored] == [content]
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("name", ["", "../../secret.key", "a" * 63, "A" * 64, "a" * 64 + "\n", "a/" * 32])
def test_what_is_no_sha256_is_no_path(files: Files, name: str) -> None:
    with pytest.raises(NotFoundError):
        files.image_path(name)


def test_a_file_that_is_missing_is_not_found(files: Files) -> None:
    with pytest.raises(NotFoundError, match="deleted by hand"):
        files.read_latents("a" * 64)


def test_a_failing_disk_leaves_no_name_and_no_litter(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        with pytest.raises(StorageFullError, match="free some space"):
            files.put_image(b"image")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert files.read_image(files.put_image(b"image")) == b"image"


def test_litter_of_dead_processes_is_removed_at_the_next_start(files: Files, tmp_path: Path) -> None:
    old, new = tmp_path / "tmp" / "old", tmp_path / "tmp" / "new"
    old.write_bytes(b"half a pic")
    new.write_bytes(b"half a pic")
    two_days_ago = time.time() - 2 * 86_400
    os.utime(old, (two_days_ago, two_days_ago))
    Files(tmp_path)
    assert not old.exists()
    assert new.exists(), "it may be a living process's"

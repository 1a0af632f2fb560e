"""Every kind of storage does the same: a folder, S3 and a data set on the Hub (real servers), memory through fsspec."""

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dmpo_app.backup.remotes import open_remote
from dmpo_app.backup.remotes.hub_remotes import BucketRemote, DatasetRemote
from dmpo_app.backup.remotes.remote import Remote, without_credentials
from dmpo_app.errors import BackupUnreachableError, NotFoundError, SetupError
from tests.hub_fixtures import hub, hub_process
from tests.studio_process import free_port

__all__ = ["hub", "hub_process"]

KINDS = ["folder", "s3", "memory", "dataset"]


@pytest.fixture(params=KINDS)
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    match request.param:
        case "folder":
            return open_remote(str(tmp_path / "storage"))
        case "s3":
            return open_remote(request.getfixturevalue("s3_url") + f"/{tmp_path.name}")
        case "dataset":
            server = request.getfixturevalue("hub")
            return DatasetRemote(f"{server.user}/backup", endpoint=server.url, token=server.token)
        case _:
            return open_remote(f"memory://{tmp_path.name}")


def test_an_empty_storage_has_no_names(remote: Remote) -> None:
    assert remote.names("") == []
    assert remote.names("log/") == []


def test_what_was_put_is_listed_by_prefix_and_read_back(remote: Remote, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"x" * 300_000)
    remote.put([("log/2", b"two"), ("log/1", file), ("logs", b"beside"), ("files/a/b.png", b"")])
    assert remote.names("log/") == ["log/1", "log/2"]
    assert remote.names("") == ["files/a/b.png", "log/1", "log/2", "logs"]
    assert remote.read("log/1") == file.read_bytes()
    assert remote.read("files/a/b.png") == b""


def test_files_are_fetched_to_where_they_are_wanted(remote: Remote, tmp_path: Path) -> None:
    remote.put([("a", b"one"), ("folder/b", b"two")])
    remote.fetch([("a", tmp_path / "here"), ("folder/b", tmp_path / "there")])
    remote.fetch([])
    assert (tmp_path / "here").read_bytes() == b"one"
    assert (tmp_path / "there").read_bytes() == b"two"


def test_putting_again_replaces_and_creating_again_does_not(remote: Remote) -> None:
    remote.put([("a", b"one")])
    remote.put([("a", b"two")])
    assert remote.read("a") == b"two"
    assert remote.create("b", b"mine")
    assert not remote.create("b", b"yours")
    assert remote.read("b") == b"mine"


def test_of_many_who_create_one_name_at_once_one_does(remote: Remote) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: remote.create("claim", b"%d" % number), range(8)))
    assert sum(made) == 1
    assert remote.read("claim") == b"%d" % made.index(True)


def test_deleting_removes_and_what_is_gone_does_no_harm(remote: Remote) -> None:
    remote.put([("a/1", b""), ("a/2", b""), ("b", b"")])
    remote.delete([])
    remote.delete(["a/1", "a/never"])
    remote.delete(["a/1"])
    assert remote.names("") == ["a/2", "b"]


@pytest.mark.parametrize("ask", [lambda r, p: r.read("no"), lambda r, p: r.fetch([("no", p / "x")])])
def test_what_is_not_there_is_not_found(remote: Remote, ask: Callable[[Remote, Path], None], tmp_path: Path) -> None:
    remote.put([("a", b"")])
    with pytest.raises(NotFoundError, match="no"):
        ask(remote, tmp_path)


def test_a_bucket_that_does_not_exist_is_out_of_reach(s3_url: str) -> None:
    missing = open_remote("s3://nobodys-bucket/studio")
    for ask in (lambda: missing.names(""), lambda: missing.put([("a", b"")]), lambda: missing.create("a", b"")):
        with pytest.raises(BackupUnreachableError, match="s3://nobodys-bucket/studio"):
            ask()


def test_a_share_that_is_not_mounted_is_out_of_reach(tmp_path: Path) -> None:
    gone = open_remote(str(tmp_path / "mnt" / "share" / "studio"))
    with pytest.raises(BackupUnreachableError):
        gone.names("claims/")


def test_a_kind_that_nobody_knows_is_a_problem_of_the_setup() -> None:
    with pytest.raises(SetupError, match="gopher://there"):
        open_remote("gopher://there/studio")


def test_names_and_passwords_in_a_url_are_not_shown() -> None:
    assert without_credentials("s3://key:secret@bucket/a?token=secret") == "s3://bucket/a"
    assert without_credentials("s3://bucket/a@b") == "s3://bucket/a@b"


@pytest.mark.parametrize("url", ["hf://buckets/alone", "hf://datasets/alone", "hf://datasets/a/b/c"])
def test_a_place_on_the_hub_that_is_none_is_named(url: str) -> None:
    with pytest.raises(SetupError, match=url):
        open_remote(url)


def test_a_hub_that_does_not_answer_is_out_of_reach() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    for remote in (BucketRemote("ada/votes", endpoint=nowhere), DatasetRemote("ada/votes", endpoint=nowhere)):
        with pytest.raises(BackupUnreachableError, match="ada/votes is out of reach"):
            remote.names("claims/")


def test_where_there_are_no_hard_links_creating_is_exclusive_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    folder = open_remote(str(tmp_path / "storage"))
    assert folder.create("claims/1.json", b"mine")
    assert not folder.create("claims/1.json", b"yours")
    assert folder.read("claims/1.json") == b"mine"
    assert folder.names("") == ["claims/1.json"]

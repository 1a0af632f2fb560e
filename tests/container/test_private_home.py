"""A home is its owner's alone, whatever the umask was; what is exported is made as the umask says."""

import logging
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmpo_app.io.files import make_files_private, users_umask
from dmpo_app.store import Store
from dmpo_app.store.home import make_home, read_secret_key
from tests.patience import PATIENCE
from tests.preloaded_process import PreloadedPython
from tests.store.store_data import make_home as make_old_home
from tests.studio_process import PROJECT_ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows keeps other permissions")


def mode(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


def open_files(home: Path) -> list[Path]:
    """The paths that others could read, were the home not closed."""
    return [path for path in (home, *home.rglob("*")) if path.lstat().st_mode & 0o077]


def open_up(home: Path) -> None:
    for path in (home, *home.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def dmpo(home: Path, *arguments: str) -> str:
    said = home.parent / "said.txt"
    environment = {**os.environ, "DMPO_HOME": str(home)}
    command = PreloadedPython("dmpo_app.cli", arguments, environment=environment, stdout=said, stderr=said)
    assert command.wait(PATIENCE) == 0, said.read_text()
    return said.read_text()


def test_a_command_that_makes_a_home_makes_it_for_its_owner_and_what_it_writes_elsewhere_for_everybody(
    tmp_path: Path,
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    dmpo(home, "export", "votes-jsonl", str(elsewhere / "export"))
    dmpo(home, "quality", "--json", str(elsewhere / "quality.json"))
    assert mode(home) == "0o700"
    assert open_files(home) == []
    assert {"studio.db", "images"} <= {path.name for path in home.iterdir()}
    modes = {path: mode(path) for path in elsewhere.rglob("*")}
    assert {path.name for path in modes} >= {"export", "quality.json"}
    assert modes == {path: "0o755" if path.is_dir() else "0o644" for path in modes}


def test_with_a_umask_that_closes_nothing_the_home_is_closed_all_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dmpo_app.cli", "consent", "list", "--home", str(tmp_path / "home")]
    subprocess.run(command, cwd=PROJECT_ROOT, umask=0, check=True, timeout=PATIENCE)
    assert (tmp_path / "home" / "studio.db").is_file()
    assert open_files(tmp_path / "home") == []


def test_a_home_that_an_older_version_left_open_is_closed_once_with_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, umask: None
) -> None:
    home = tmp_path / "home"
    make_old_home(home)
    for name in ("imports/sent/a.parquet", "adapters/0123/00001-ab/manifest.json", "trainer.log.1", "studio.db-wal.x"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    outside = tmp_path / "outside.txt"
    outside.touch(0o644)
    (home / "images").mkdir(exist_ok=True)
    (home / "images" / "link").symlink_to(outside)
    open_up(home)
    with caplog.at_level(logging.INFO, "dmpo_app"):
        Store.open(home).close()
        assert [path for path in open_files(home) if not path.is_symlink()] == []
        assert mode(outside) == "0o644", "links are not followed"
        Store.open(home).close()
    assert [record.message for record in caplog.records if "open to other users" in record.message] == [
        f"{home} was open to other users of this machine; now it is its owner's alone"
    ]


def test_a_folder_that_holds_other_things_stays_as_it_is_but_for_what_is_the_studios(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, umask: None
) -> None:
    home = tmp_path / "home"
    (home / "holidays").mkdir(parents=True)
    (home / "holidays" / "photo.jpg").touch()
    make_old_home(home)
    open_up(home)
    make_home(home)
    assert [mode(path) for path in (home, home / "holidays", home / "holidays" / "photo.jpg")] == [
        "0o755",
        "0o755",
        "0o644",
    ]
    assert mode(home / "studio.db") == "0o600"
    assert "holds more than the studio's files (holidays)" in caplog.text


def test_where_permissions_cannot_be_set_one_warning_says_so_and_the_home_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, umask: None
) -> None:
    home = tmp_path / "home"
    make_old_home(home)
    open_up(home)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    for chmod in (refuse, lambda *_, **__: None):  # shares of Windows refuse, FAT keeps quiet
        caplog.clear()
        monkeypatch.setattr(Path, "chmod", chmod)
        Store.open(home).close()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "stays open to other users" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_what_belongs_to_another_user_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, umask: None
) -> None:
    home = tmp_path / "home"
    make_old_home(home)
    open_up(home)
    os.chown(home, 54321, 54321)
    make_home(home)
    assert mode(home) == "0o755"
    assert "belongs to another user" in caplog.text


def test_a_backup_in_a_folder_is_closed_too_and_so_is_what_is_restored_from_it(tmp_path: Path) -> None:
    home, backup, restored = tmp_path / "home", tmp_path / "backup", tmp_path / "restored"
    Store.open(home).close()
    read_secret_key(home)
    dmpo(home, "backup", str(backup))
    dmpo(home, "restore", str(backup), str(restored))
    assert (restored / "studio.db").is_file()
    assert open_files(backup) == open_files(restored) == []


def test_the_users_umask_is_back_when_a_command_has_ended(umask: None) -> None:
    undo = make_files_private()
    with users_umask():
        assert os.umask(0o022) == 0o022
    assert os.umask(0o077) == 0o077
    undo()
    assert os.umask(0o022) == 0o022
    with users_umask():
        assert os.umask(0o022) == 0o022

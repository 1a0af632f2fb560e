"""Durable files by what they promise: whole or not at all, whatever fails and whenever the process is killed."""

import errno
import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from dmpo_app.backup.remotes.folder_remote import FolderRemote
from dmpo_app.backup.restoring import _put_in_place
from dmpo_app.backup.startup import _read_or_create_owner_id
from dmpo_app.diffusion.adapter_files import write_adapter
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.errors import BackupUnreachableError, StorageFullError
from dmpo_app.exchange.exporting.output_files import atomic_folder
from dmpo_app.io import files as io
from dmpo_app.io.processes import StopFlag, module_command
from dmpo_app.labeling.sign_in import load_or_create_key
from dmpo_app.store.files import Files
from dmpo_app.training.data.encoding import EncodedBatch, EncodedPairs
from examples.pocket_model.checkpoint import save_atomically
from tests.patience import PATIENCE
from tests.studio_process import PROJECT_ROOT

KILLED_BEFORE = """
import os, signal, sys
from pathlib import Path
from types import FrameType
from typing import Any
from dmpo_app.io import files as io

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

moment, action, *paths = sys.argv[1:]
owner, name = {"replace": (Path, "replace"), "rename": (Path, "rename"), "fsync": (os, "fsync"),
               "link": (Path, "hardlink_to")}[moment]
setattr(owner, name, killed)
first, *rest = map(Path, paths)
{"write": lambda: io.write_atomically(first, b"new"),
 "create": lambda: io.create_exclusively(first, b"new"),
 "append": lambda: io.append_durably(first, b"new"),
 "move": lambda: io.move_durably(first, *rest),
 "publish": lambda: io.publish_folder(first, *rest)}[action]()
"""


def kill_before(moment: str, action: str, *paths: Path) -> None:
    """Run one action in a process of its own that is killed when it comes to `moment`."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    command = [sys.executable, "-c", KILLED_BEFORE, moment, action, *map(str, paths)]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_hashes_are_those_of_sha256(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(content)
    assert io.sha256_hex(content) == io.sha256_of_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_process_killed_amid_a_write_leaves_the_old_file(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    kill_before(moment, "write", path)
    assert path.read_bytes() == b"old"
    io.write_atomically(path, b"newer")
    assert path.read_bytes() == b"newer"


@pytest.mark.parametrize("moment", ["fsync", "link"])
def test_a_process_killed_amid_a_creation_leaves_no_file(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "file"
    kill_before(moment, "create", path)
    assert not path.exists()
    assert io.create_exclusively(path, b"content")


def test_a_process_killed_amid_a_publication_leaves_no_folder(tmp_path: Path) -> None:
    staging, target = tmp_path / "staging", tmp_path / "target"
    staging.mkdir()
    (staging / "file").write_bytes(b"content")
    kill_before("rename", "publish", staging, target)
    assert not target.exists()
    io.publish_folder(staging, target)
    assert names(target) == ["file"]


def test_a_process_killed_amid_a_move_leaves_both_files_as_they_were(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    kill_before("replace", "move", source, target)
    assert (source.read_bytes(), target.read_bytes()) == (b"new", b"old")
    io.move_durably(source, target)
    assert names(tmp_path) == ["target"]
    assert target.read_bytes() == b"new"


def test_whatever_goes_wrong_while_a_file_is_written_leaves_the_old_one_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    io.write_atomically(path, b"old")
    with pytest.raises(KeyboardInterrupt), io.atomic_file(path) as file:  # noqa: PT012 - amid the block
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_file_is_flushed_before_its_name_and_its_folders_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        happened.append(f"flush {Path(f'/proc/self/fd/{descriptor}').readlink().name.split('.')[-1]}")
        fsync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        happened.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    home = tmp_path / "home"
    io.write_atomically(home / "a" / "b" / "file", b"content")
    assert happened == ["flush a", "flush home", f"flush {tmp_path.name}", "flush tmp", "rename", "flush b"]


def test_a_folder_that_its_file_system_cannot_flush_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def as_on_a_share(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", as_on_a_share)
    io.write_atomically(tmp_path / "folder" / "file", b"content")
    assert (tmp_path / "folder" / "file").read_bytes() == b"content"


@pytest.mark.parametrize("has_links", [True, False])
def test_of_many_that_create_a_file_one_does_and_the_others_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def no_links(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(Path, "hardlink_to", no_links)
    contents = [os.urandom(20_000) for _ in range(8)]
    for number in range(20):
        path = tmp_path / str(number) / "file"
        with ThreadPoolExecutor(8) as pool:
            created = list(pool.map(lambda content, path=path: io.create_exclusively(path, content), contents))
        assert created.count(True) == 1
        assert path.read_bytes() == contents[created.index(True)]
        assert names(path.parent) == ["file"]


def test_a_created_file_has_the_permissions_asked_for(tmp_path: Path) -> None:
    io.create_exclusively(tmp_path / "secret", b"key", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_an_append_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lines"
    io.append_durably(path, b"one\n")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        with pytest.raises(StorageFullError):
            io.append_durably(path, b"two\n")
    assert path.read_bytes() == b"one\n"
    io.append_durably(path, b"three\n")
    assert path.read_bytes() == b"one\nthree\n"


def test_a_folder_takes_the_place_of_another_only_where_that_was_asked(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    target = tmp_path / "target"
    io.publish_folder(tmp_path / "first", target)
    with pytest.raises(OSError, match="not empty"):
        io.publish_folder(tmp_path / "second", target)
    assert (target / "file").read_text() == "first"
    io.publish_folder(tmp_path / "second", target, replace=True)
    assert (target / "file").read_text() == "second"
    assert names(tmp_path) == ["target"]


def no_space(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def export_to(target: Path) -> None:
    with atomic_folder(target) as staging:
        (staging / "file").write_bytes(b"content")


def put_in_place(home: Path) -> None:
    (home / "restored").write_bytes(b"image")
    try:
        _put_in_place(home / "restored", home / "images" / "image")
    finally:
        (home / "restored").unlink(missing_ok=True)


def append_batch(home: Path) -> None:
    EncodedPairs(home).append(EncodedBatch(1, (), (), {}, is_last=False))


def adapter(home: Path) -> None:
    spec = LoraSpec(rank=1, lora_alpha=1.0, target_modules=("to_q",))
    key = "unet.to_q.{}.weight"
    write_adapter(home / "adapters", 1, {key.format(side): torch.ones(1, 1) for side in ("lora_A", "lora_B")}, spec, {})


WRITERS: dict[str, Callable[[Path], object]] = {
    "image": lambda home: Files(home).put_image(b"image"),
    "images": lambda home: Files(home).put_images([b"one", b"two"]),
    "adapter": adapter,
    "export": lambda home: export_to(home / "export"),
    "key": load_or_create_key,
    "owner": _read_or_create_owner_id,
    "restored file": put_in_place,
    "encoded pairs": append_batch,
    "pocket checkpoint": lambda home: save_atomically({"step": 1}, home / "checkpoint"),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_reported_as_such_by_everything_that_writes_and_leaves_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, number: int
) -> None:
    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        patched.setattr("dmpo_app.store.files.flush_file_system", full)
        with pytest.raises(StorageFullError, match="free some space"):
            WRITERS[writer](tmp_path)
    litter = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 0]
    assert litter == []
    WRITERS[writer](tmp_path)


def test_a_full_disk_of_a_backup_is_told_as_the_backup_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = FolderRemote(tmp_path / "remote")
    for write in (lambda: remote.put([("name", b"content")]), lambda: remote.create("name", b"content")):
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", no_space)
            with pytest.raises(BackupUnreachableError, match="No space left"):
                write()
        assert remote.names("") == []
        write()
        assert remote.read("name") == b"content"
        remote.delete(["name"])


HOSTILE = ("json.py", "torch.py", "typing.py", "dmpo_app/__init__.py")


def test_a_module_runs_from_any_folder_with_this_package_and_nothing_of_that_folder(tmp_path: Path) -> None:
    for name in HOSTILE:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('the current folder was imported')")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [*module_command("dmpo_app.cli"), "--version"]
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")


def test_a_module_is_of_the_package_that_is_running_and_not_of_the_one_that_is_installed(tmp_path: Path) -> None:
    copy = tmp_path / "dmpo_app"
    copy.mkdir()
    shutil.copytree(PROJECT_ROOT / "dmpo_app" / "io", copy / "io")
    shutil.copy(PROJECT_ROOT / "dmpo_app" / "errors.py", copy)
    (copy / "__init__.py").write_text("")
    (copy / "child.py").write_text(
        "import sys; print(__name__, __package__, sys.argv[1:], sys.modules['dmpo_app'].__file__)"
    )
    parent = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import subprocess; "
    parent += "from dmpo_app.io.processes import module_command; "
    parent += "subprocess.run([*module_command('dmpo_app.child'), 'a', 'b'])"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        [sys.executable, "-P", "-c", parent], env=environment, capture_output=True, text=True, check=True
    )
    assert finished.stdout.split() == ["__main__", "dmpo_app", "['a',", "'b']", str(copy / "__init__.py")]


BURST = """
import os, sys
from dmpo_app.io.processes import stop_signals
with stop_signals() as stopping:
    print("up", flush=True)
    while not stopping.wait(0.0005):
        sum(range(500))
    assert stopping.wait() and stopping.wait(0)
    print("down", flush=True)
    os._exit(0)  # with the handlers still in place: the burst goes on
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_burst_of_signals_from_several_threads_sets_the_flag_once_and_blocks_nobody(number: signal.Signals) -> None:
    command = [sys.executable, "-c", BURST]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT) as process:
        assert process.stdout is not None
        process.stdout.readline()

        def burst() -> None:
            for _ in range(200):
                process.send_signal(number)

        with ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(burst)
        rest, _ = process.communicate(timeout=PATIENCE)
    assert (rest, process.returncode) == ("down\n", 0)


def test_a_stop_flag_wakes_all_who_wait_and_counts_time_for_those_it_does_not() -> None:
    flag = StopFlag()
    assert not flag.wait(0.01)
    assert not flag.wait(0)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(flag.wait) for _ in range(2)] + [pool.submit(flag.wait, PATIENCE)]
        flag.set()
        assert [future.result(PATIENCE) for future in waiting] == [True] * 3
    flag.set()
    assert flag.is_set()


def test_a_stop_flag_can_be_set_again_amid_setting_it() -> None:
    """A second signal comes while the handler of the first one runs, at each of its lines in turn."""
    for line in range(4):
        flag, lines = StopFlag(), itertools.count()

        def interrupt(frame: FrameType, event: str, _: object, flag: StopFlag = flag, lines: Any = lines) -> Any:
            if frame.f_code is not StopFlag.set.__code__:
                return None
            if event == "line" and next(lines) == line:  # noqa: B023 - called within this turn
                sys.settrace(None)
                flag.set()
            return interrupt

        sys.settrace(interrupt)
        try:
            flag.set()
        finally:
            sys.settrace(None)
        assert flag.is_set()
        assert flag.wait(PATIENCE)
